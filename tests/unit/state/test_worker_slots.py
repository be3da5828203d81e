"""Memory that the workers share for their counters, without any server."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator

import pytest

from openai_compat.core.turns import TimeSlices
from openai_compat.state import worker_slots
from openai_compat.state.worker_slots import Slot, SlotAssignment, SlotReader, open_slot, slot_count

FAMILY = "calls_total"


@pytest.fixture
def master() -> Iterator[SlotAssignment]:
    assignment = SlotAssignment()
    yield assignment
    assignment.close()


def place_of(slot: str) -> tuple[int, int]:
    descriptor, _, number = slot.partition(":")
    return int(descriptor), int(number)


def take(master: SlotAssignment) -> tuple[str, Slot]:
    """Take a slot as a worker does."""
    text = master.take()
    slot, _, own_file = open_slot(text)
    assert own_file is None
    slot.own()
    return text, slot


def add(slot: Slot, amount: float, *labels: str) -> None:
    index = slot.add(FAMILY, labels, 1)
    assert index is not None
    slot.values[index] += amount


def read(text: str) -> dict[tuple[str, ...], float]:
    """Read a slot as another process does."""
    reader = SlotReader(*place_of(text))
    found, values = reader.read(TimeSlices())
    return {series.labels: values[series.start] for series in found if series.family == FAMILY}


def test_another_process_reads_what_a_worker_counts(master: SlotAssignment) -> None:
    text, slot = take(master)
    add(slot, 2, "a", "ü\n")
    add(slot, 1, "b", "")
    add(slot, 1, "a", "ü\n")
    assert read(text) == {("a", "ü\n"): 3, ("b", ""): 1}


def test_a_reader_sees_series_that_were_added_since_its_last_look(master: SlotAssignment) -> None:
    text, slot = take(master)
    add(slot, 1, "a")
    reader = SlotReader(*place_of(text))
    assert reader.read(TimeSlices())[1] == [1]
    add(slot, 2, "b")
    found, values = reader.read(TimeSlices())
    assert values == [1, 2]
    assert [series.labels for series in found] == [("a",), ("b",)]


def test_the_next_worker_continues_with_the_counts_of_a_dead_one(master: SlotAssignment) -> None:
    first, slot = take(master)
    add(slot, 5, "a")
    master.release(first)
    second, slot = take(master)
    assert second == first
    add(slot, 1, "a")
    add(slot, 1, "b")
    assert read(second) == {("a",): 6, ("b",): 1}


def test_the_file_grows_only_with_the_workers_that_live_at_once(master: SlotAssignment) -> None:
    descriptor = master.descriptor
    for _ in range(20):
        slots = [take(master)[0] for _ in range(3)]
        assert len(set(slots)) == 3
        for slot in slots:
            master.release(slot)
    assert slot_count(descriptor) == 4, "that of the master, and those of three workers"


def test_a_slot_has_an_owner_only_while_its_worker_lives(master: SlotAssignment) -> None:
    text, _ = take(master)
    reader = SlotReader(*place_of(text))
    assert reader.is_owned
    master.release(text)
    assert not reader.is_owned


@pytest.mark.parametrize(("is_orderly", "kind"), [(True, "orderly"), (False, "crash")])
def test_the_master_tells_crashes_from_orderly_ends(master: SlotAssignment, is_orderly: bool, kind: str) -> None:
    for _ in range(2):  # the second worker gets the slot of the first one
        text, slot = take(master)
        if is_orderly:
            slot.finish()
        master.release(text)
    own = SlotReader(master.descriptor, 0)
    found, values = own.read(TimeSlices())
    exits = {series.labels[0]: values[series.start] for series in found if series.family == worker_slots.EXITS}
    assert exits == {"orderly": 0, "crash": 0, kind: 2}
    assert [values[series.start] for series in found if series.family == worker_slots.STARTS] == [2]


def _count_and_die(text: str, count: int) -> None:
    slot, _, _ = open_slot(text)
    for _ in range(count):
        add(slot, 1, "killed")
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_loses_nothing_that_it_has_counted(master: SlotAssignment) -> None:
    text = master.take()
    process = multiprocessing.get_context("fork").Process(target=_count_and_die, args=(text, 1000))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert read(text) == {("killed",): 1000}


def test_a_full_slot_takes_reserved_series_only(master: SlotAssignment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_slots, "MAX_VALUES", worker_slots.RESERVED_VALUES + 10)
    text, slot = take(master)
    for number in range(10):
        add(slot, 1, str(number))
    assert slot.add(FAMILY, ("10",), 1) is None
    assert slot.add(FAMILY, ("3",), 1) == 3, "a series that exists"
    other = slot.add(FAMILY, ("other",), 1, is_reserved=True)
    assert other is not None
    slot.values[other] += 7
    assert read(text)[("other",)] == 7


def test_a_second_application_of_a_process_counts_for_itself(master: SlotAssignment) -> None:
    text, slot = take(master)
    add(slot, 1, "a")
    other, descriptor, own_file = open_slot(text)
    assert own_file is not None
    add(other, 9, "a")
    assert read(text) == {("a",): 1}
    assert read(f"{descriptor}:0") == {("a",): 9}
    own_file.close()


@pytest.mark.parametrize("text", [None, "0:1", "999999:1"])
def test_a_process_without_a_master_counts_for_itself(text: str | None) -> None:
    """The descriptor of another process means nothing, or another file."""
    slot, descriptor, own_file = open_slot(text)
    assert own_file is not None
    add(slot, 1, "a")
    assert read(f"{descriptor}:0") == {("a",): 1}
    own_file.close()
