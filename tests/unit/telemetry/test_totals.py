"""Sums over the slots of several workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from openai_compat.core.turns import TimeSlices
from openai_compat.state.worker_slots import SlotAssignment, open_slot
from openai_compat.telemetry import families
from openai_compat.telemetry.series import SeriesTable
from openai_compat.telemetry.totals import TotalsReader


class Server:
    """A master with workers that count and have gauges."""

    def __init__(self) -> None:
        self.assignment = SlotAssignment()
        self.totals = TotalsReader(self.assignment.descriptor)

    def start_worker(self) -> tuple[str, SeriesTable]:
        slot = self.assignment.take()
        return slot, SeriesTable(open_slot(slot)[0])

    def value(self, family: families.Family, *labels: str) -> float | None:
        found = self.totals.read(TimeSlices())[family.name].get(labels)
        return None if found is None else found[0]


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.assignment.close()


def test_counters_of_dead_workers_count_and_their_gauges_do_not(server: Server) -> None:
    first, table = server.start_worker()
    _, other = server.start_worker()
    for one in (table, other):
        one.add(3, families.RETRIES, "m")
        one.set(5, families.IN_FLIGHT)
    assert (server.value(families.RETRIES, "m"), server.value(families.IN_FLIGHT)) == (6, 10)
    server.assignment.release(first)
    assert (server.value(families.RETRIES, "m"), server.value(families.IN_FLIGHT)) == (6, 5)


def test_a_new_worker_does_not_begin_with_the_gauges_of_the_one_before(server: Server) -> None:
    first, table = server.start_worker()
    table.set(5, families.IN_FLIGHT)
    table.add(3, families.RETRIES, "m")
    server.assignment.release(first)
    server.start_worker()
    assert (server.value(families.RETRIES, "m"), server.value(families.IN_FLIGHT)) == (3, 0)


def test_series_of_another_version_of_the_server_are_skipped(server: Server) -> None:
    _, table = server.start_worker()
    for name, labels, size in (
        ("openai_compat_removed_total", ("m",), 1),
        (families.RETRIES.name, ("m", "another label"), 1),
        (families.REQUEST_DURATION.name, ("chat", "openai", "m", ""), 5),
    ):
        table._slot.add(name, labels, size)
    table.add(1, families.RETRIES, "m")
    assert server.value(families.RETRIES, "m") == 1
    assert server.value(families.REQUEST_DURATION, "chat", "openai", "m", "") is None


class LastTurn(TimeSlices):
    """Time slices that do some work at the check before the last one of `checks` series."""

    def __init__(self, checks: int, work: Callable[[], object]) -> None:
        super().__init__()
        self._checks = checks
        self._work = work

    def check(self) -> None:
        self._checks -= 1
        if not self._checks:
            self._work()


def test_two_scrapes_at_once_do_not_disturb_each_other(server: Server) -> None:
    _, table = server.start_worker()
    table.add(3, families.RETRIES, "m")
    known = server.totals.read(TimeSlices())

    def scrape_a_new_series() -> None:
        table.add(1, families.RETRIES, "new")
        assert server.value(families.RETRIES, "new") == 1

    turns = LastTurn(sum(map(len, known.values())), scrape_a_new_series)
    assert server.totals.read(turns) == known
