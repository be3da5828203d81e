"""Circuit breakers of two workers that share a store, with a clock that the test advances."""

from __future__ import annotations

import pytest

from openai_compat.core.settings import RoutePolicy
from openai_compat.routing.circuit_breaker import MAX_COOLDOWN, PROBE_TIMEOUT, REFRESH_INTERVAL, CircuitBreaker, Permit
from openai_compat.routing.load_balancer import LeastLatency
from openai_compat.state.memory import MemoryStore


class Workers:
    """Circuit breakers on one store."""

    def __init__(self, count: int = 2) -> None:
        self.now = 1_000_000.0
        self.store = MemoryStore(lambda: self.now)
        self.all = [CircuitBreaker(self.store, ["up", "other"], lambda: self.now) for _ in range(count)]

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def permits(self, name: str = "up") -> list[Permit | None]:
        """Request a permit from each worker, after all of them have refreshed their state."""
        self.advance(REFRESH_INTERVAL)
        return [worker.try_acquire(name) for worker in self.all]


@pytest.fixture
def workers() -> Workers:
    return Workers()


POLICY = RoutePolicy(cooldown=10, failure_threshold=2)
CLOSED = [Permit.NORMAL, Permit.NORMAL]
OPEN = [None, None]


def fail(worker: CircuitBreaker, permit: Permit = Permit.NORMAL) -> None:
    worker.on_failure("up", POLICY, permit, is_outage=False)


def report_outage(worker: CircuitBreaker, retry_after: float | None = None, permit: Permit = Permit.NORMAL) -> None:
    worker.on_failure("up", POLICY, permit, is_outage=True, retry_after=retry_after)


def test_an_outage_opens_the_circuit_of_all_workers(workers: Workers) -> None:
    assert workers.permits() == CLOSED
    report_outage(workers.all[0])
    assert workers.all[0].try_acquire("up") is None
    assert workers.permits() == OPEN
    assert workers.permits("other") == CLOSED


def test_after_the_cooldown_one_call_of_all_workers_probes(workers: Workers) -> None:
    report_outage(workers.all[0])
    workers.advance(10)
    assert workers.permits() == [Permit.PROBE, None]
    assert workers.permits() == OPEN
    workers.all[0].on_first_byte("up", workers.all[0].open_until("up"))
    assert workers.permits() == CLOSED


def test_a_failed_probe_opens_the_circuit_again(workers: Workers) -> None:
    report_outage(workers.all[0])
    workers.advance(10)
    assert workers.permits()[0] is Permit.PROBE
    fail(workers.all[0], Permit.PROBE)
    assert workers.permits() == OPEN
    workers.advance(10)
    assert workers.permits().count(Permit.PROBE) == 1


def test_a_worker_with_old_state_does_not_probe_a_second_time(workers: Workers) -> None:
    report_outage(workers.all[0])
    workers.advance(10.5)
    first, second = workers.all
    second.refresh()
    assert first.try_acquire("up") is Permit.PROBE
    report_outage(first, permit=Permit.PROBE)
    assert second.try_acquire("up") is None


def test_a_released_probe_can_be_claimed_again(workers: Workers) -> None:
    report_outage(workers.all[0])
    workers.advance(10)
    assert workers.permits() == [Permit.PROBE, None]
    workers.all[0].release("up", Permit.PROBE)
    assert workers.permits() == [Permit.PROBE, None]
    workers.advance(PROBE_TIMEOUT)
    assert workers.permits() == [Permit.PROBE, None]


def test_consecutive_faults_are_counted_across_workers(workers: Workers) -> None:
    first, second = workers.all
    fail(first)
    assert workers.permits() == CLOSED
    second.on_success("up")
    fail(second)
    assert workers.permits() == CLOSED
    fail(first)
    assert workers.permits() == OPEN


def test_retry_after_extends_the_cooldown_up_to_the_maximum(workers: Workers) -> None:
    report_outage(workers.all[0], retry_after=30)
    workers.advance(29)
    assert workers.permits() == OPEN
    workers.advance(1)
    assert Permit.PROBE in workers.permits()
    workers = Workers()
    report_outage(workers.all[0], retry_after=86_400)
    workers.advance(MAX_COOLDOWN)
    assert Permit.PROBE in workers.permits()


def test_without_a_cooldown_the_circuit_stays_closed(workers: Workers) -> None:
    workers.all[0].on_failure("up", RoutePolicy(cooldown=0), Permit.NORMAL, is_outage=True)
    assert workers.permits() == CLOSED


def test_workers_share_their_latencies(workers: Workers) -> None:
    balancers = [LeastLatency(["up", "other"], lambda: workers.now) for _ in workers.all]
    for worker, balancer in zip(workers.all, balancers, strict=True):
        worker.share_latencies(balancer.latencies)
    balancers[0].on_first_byte("up", 5.0)
    balancers[0].on_first_byte("other", 0.1)
    workers.permits()
    workers.permits()
    assert balancers[1].order() == ["other", "up"]
