"""Leases, by which two calls at once on one conversation are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from secrets import token_hex

import pytest

from openai_compat.storage import leases as module
from openai_compat.storage.database import open_database
from openai_compat.storage.leases import LEASE_SECONDS, LeaseStore
from openai_compat.storage.location import Location
from openai_compat.storage.native_thread import NativeThread
from tests.support.waiting import wait_until


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_leases(location: Location, clock: Clock) -> Iterator[Callable[[], LeaseStore]]:
    opened: list[LeaseStore] = []

    def open_one() -> LeaseStore:
        opened.append(LeaseStore(open_database(location, NativeThread()), clock))
        return opened[-1]

    yield open_one
    for leases in opened:
        leases.close()


def test_a_lease_has_one_holder_until_it_is_released(open_leases: Callable[[], LeaseStore]) -> None:
    name = token_hex(8)
    one, other = open_leases(), open_leases()
    lease = one.acquire(name)
    assert lease is not None
    assert other.acquire(name) is None
    assert other.acquire(f"{name}-other") is not None
    lease.release()
    again = other.acquire(name)
    assert again is not None
    lease.release()
    assert one.acquire(name) is None, "a second release does not end the lease of another holder"


def test_a_crashed_holder_blocks_others_for_a_while(open_leases: Callable[[], LeaseStore], clock: Clock) -> None:
    name = token_hex(8)
    crashed, other = open_leases(), open_leases()
    assert crashed.acquire(name) is not None
    clock.now += LEASE_SECONDS - 1
    assert other.acquire(name) is None
    clock.now += 1
    assert other.acquire(name) is not None


def test_a_held_lease_is_renewed(
    open_leases: Callable[[], LeaseStore], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEWAL_INTERVAL", 0.01)
    name = token_hex(8)
    holder, other = open_leases(), open_leases()
    renewed: list[float] = []
    renew = holder._renew

    def record(held: list[str]) -> None:
        renew(held)
        renewed.append(clock.now)

    monkeypatch.setattr(holder, "_renew", record)
    lease = holder.acquire(name)
    assert lease is not None
    for _ in range(3):
        clock.now += LEASE_SECONDS - 1
        now = clock.now
        wait_until(lambda now=now: now in renewed, "the lease is renewed")
        assert other.acquire(name) is None
    lease.release()
    assert other.acquire(name) is not None
