"""The policies that decide about a call, each by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from email.utils import formatdate
from itertools import cycle

import pytest

from openai_compat.core.errors import (
    BackendError,
    CallCancelledError,
    CapabilityError,
    InternalError,
    InvalidRequestError,
    OpenAICompatError,
    UpstreamAuthenticationError,
    UpstreamBusyError,
    UpstreamConnectionError,
    UpstreamInvalidResponseError,
    UpstreamStatusError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
)
from openai_compat.core.settings import RoutePolicy
from openai_compat.routing.circuit_breaker import MAX_COOLDOWN, PROBE_TIMEOUT, REFRESH_INTERVAL, CircuitBreaker, Permit
from openai_compat.routing.failure_policy import classify
from openai_compat.routing.load_balancer import DECAY_TIME, LeastLatency, PeakEWMA, WeightedRandom
from openai_compat.routing.retry import Backoff, parse_retry_after
from openai_compat.state.memory import MemoryStore


def refusal(status: int, code: str | None = None, **headers: str) -> UpstreamStatusError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return UpstreamStatusError("no", upstream_status=status, type_="x", code=code, headers=named)


# verdicts

TOO_LONG = refusal(400, "context_length_exceeded")
RETRY, FALL_BACK, TELL = (True, True), (False, True), (False, False)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (refusal(429), RETRY),
        (refusal(503), RETRY),
        (refusal(529), RETRY),
        (refusal(500), RETRY),
        (refusal(502), RETRY),
        (refusal(504), RETRY),
        (refusal(408), RETRY),
        (UpstreamConnectionError("no"), RETRY),
        (UpstreamTruncatedError("no"), RETRY),
        (UpstreamInvalidResponseError("no"), RETRY),
        (refusal(429, "insufficient_quota"), FALL_BACK),
        (refusal(429, x_should_retry="false"), FALL_BACK),
        (refusal(500, x_should_retry="false"), FALL_BACK),
        (UpstreamTimeoutError("no"), FALL_BACK),
        (UpstreamBusyError(1), FALL_BACK),
        (InternalError(), FALL_BACK),
        (BackendError("no"), FALL_BACK),
        (refusal(400, "context_length_exceeded"), FALL_BACK),
        (refusal(413, "context_length_exceeded"), FALL_BACK),
        (refusal(400), TELL),
        (refusal(400, "content_filter"), TELL),
        (refusal(401), TELL),
        (refusal(403), TELL),
        (refusal(404), TELL),
        (refusal(422), TELL),
        (refusal(501), TELL),
        (UpstreamAuthenticationError("no"), TELL),
        (InvalidRequestError("no"), TELL),
        (CapabilityError("no"), TELL),
        (CallCancelledError(), TELL),
    ],
)
def test_what_a_failure_means(error: OpenAICompatError, expected: tuple[bool, bool]) -> None:
    verdict = classify(error)
    assert (verdict.retries, verdict.try_next) == expected


def test_what_says_that_nobody_is_served_now_and_what_that_nothing_was_done() -> None:
    assert [classify(error).is_outage for error in (refusal(429), refusal(503), UpstreamConnectionError("no"))] == [
        True
    ] * 3
    assert not any(
        classify(error).is_outage for error in (refusal(500), UpstreamTruncatedError("x"), UpstreamTimeoutError("x"))
    )
    assert [classify(error).not_processed for error in (refusal(429), refusal(503))] == [True] * 2
    assert not any(classify(error).not_processed for error in (refusal(500), UpstreamConnectionError("x")))
    assert all(classify(error).is_fault for error in (refusal(500), UpstreamTimeoutError("x"), refusal(429)))
    assert not any(
        classify(error).is_fault
        for error in (InternalError(), UpstreamBusyError(1), TOO_LONG, refusal(400), InvalidRequestError("x"))
    )


# backoff


def test_waits_double_up_to_the_longest_and_differ_by_chance() -> None:
    latest, soonest = Backoff(1.0, chance=lambda: 1.0), Backoff(1.0, chance=lambda: 0.0)
    assert [latest.delay(retry, None) for retry in range(4)] == [0.25, 0.5, 1.0, 1.0]
    assert [soonest.delay(retry, None) for retry in range(4)] == [0.125, 0.25, 0.5, 0.5]


def test_a_wait_that_the_upstream_names_is_kept_or_not_waited_at_all() -> None:
    backoff = Backoff(2.0, chance=lambda: 1.0)
    assert backoff.delay(0, 2.0) == pytest.approx(2.2)
    assert Backoff(2.0, chance=lambda: 0.0).delay(3, 0.5) == 0.5
    assert backoff.delay(0, 2.1) is None
    assert backoff.delay(0, 0.0) == 0.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": formatdate(1_000_007, usegmt=True)}, 7.0),
        ({"retry-after": formatdate(999_000, usegmt=True)}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "nan", "retry-after": "2"}, 2.0),
    ],
)
def test_the_wait_that_headers_name(headers: Mapping[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers, now=lambda: 1_000_000.0) == seconds


# balancing


def test_calls_are_shared_by_weight() -> None:
    marks = cycle(number / 100 for number in range(100))
    balancer = WeightedRandom({"a": 3, "b": 1, "never": 0}, chance=lambda: next(marks))
    orders = [balancer.order() for _ in range(300)]
    assert Counter(order[0] for order in orders)["never"] == 0
    assert Counter(order[0] for order in orders)["a"] == pytest.approx(225, abs=10)
    assert all(sorted(order) == ["a", "b", "never"] for order in orders)


def test_a_slow_answer_counts_at_once_and_is_forgotten_slowly() -> None:
    now = [100.0]
    latency = PeakEWMA(lambda: now[0])
    latency.add(0.1)
    latency.add(2.0)
    assert latency.now == 2.0
    now[0] += 1
    latency.add(0.1)
    assert 1.5 < latency.seconds < 2.0
    now[0] += 10 * DECAY_TIME
    assert latency.now < 0.01


def test_the_fastest_target_is_asked_until_it_is_busy() -> None:
    balancer = LeastLatency(["slow", "fast"], clock=lambda: 1.0, chance=lambda: 0.5)
    balancer.answered("slow", 0.3)
    balancer.answered("fast", 0.1)
    assert balancer.order() == ["fast", "slow"]
    for _ in range(3):
        balancer.began("fast")
    assert balancer.order() == ["slow", "fast"]
    balancer.ended("fast")
    balancer.ended("fast")
    assert balancer.order() == ["fast", "slow"]


def test_a_target_that_was_never_measured_is_tried_and_a_fallback_is_not_counted() -> None:
    balancer = LeastLatency(["known", "new"], clock=lambda: 1.0, chance=lambda: 0.5)
    balancer.answered("known", 0.01)
    balancer.began("somebody else")
    balancer.answered("somebody else", 1.0)
    balancer.ended("somebody else")
    assert balancer.order() == ["new", "known"]
    balancer.began("new")
    assert balancer.order() == ["known", "new"]


# health: two workers that share a store, and a clock that the test turns


class Workers:
    def __init__(self, count: int = 2) -> None:
        self.now = 1_000_000.0
        self.store = MemoryStore(lambda: self.now)
        self.all = [CircuitBreaker(self.store, ["up", "other"], lambda: self.now) for _ in range(count)]

    def later(self, seconds: float) -> None:
        self.now += seconds

    def admissions(self, name: str = "up") -> list[Permit | None]:
        self.later(REFRESH_INTERVAL)
        return [worker.try_acquire(name) for worker in self.all]


@pytest.fixture
def workers() -> Workers:
    return Workers()


POLICY = RoutePolicy(cooldown=10, failure_threshold=2)
HEALTHY = [Permit.NORMAL, Permit.NORMAL]


def outage(worker: CircuitBreaker, named: float | None = None, admission: Permit = Permit.NORMAL) -> None:
    worker.failed("up", POLICY, admission, is_outage=True, named=named)


def test_an_outage_that_one_worker_meets_keeps_all_away_for_the_cooldown(workers: Workers) -> None:
    assert workers.admissions() == HEALTHY
    outage(workers.all[0])
    assert workers.all[0].try_acquire("up") is None
    assert workers.admissions() == [None, None]
    assert workers.admissions("other") == HEALTHY


def test_after_the_cooldown_one_call_of_all_workers_probes(workers: Workers) -> None:
    outage(workers.all[0])
    workers.later(10)
    assert workers.admissions() == [Permit.PROBE, None]
    assert workers.admissions() == [None, None]
    workers.all[0].on_first_byte("up")
    assert workers.admissions() == HEALTHY


def test_a_probe_that_fails_begins_another_cooldown(workers: Workers) -> None:
    outage(workers.all[0])
    workers.later(10)
    assert workers.admissions()[0] is Permit.PROBE
    workers.all[0].failed("up", POLICY, Permit.PROBE, is_outage=False)
    assert workers.admissions() == [None, None]
    workers.later(10)
    assert workers.admissions().count(Permit.PROBE) == 1


def test_a_worker_with_an_old_view_does_not_probe_once_more(workers: Workers) -> None:
    outage(workers.all[0])
    workers.later(10.5)
    first, second = workers.all
    second.refresh()
    assert first.try_acquire("up") is Permit.PROBE
    outage(first, admission=Permit.PROBE)
    assert second.try_acquire("up") is None


def test_a_probe_without_a_verdict_leaves_the_next_caller_to_probe(workers: Workers) -> None:
    outage(workers.all[0])
    workers.later(10)
    assert workers.admissions() == [Permit.PROBE, None]
    workers.all[0].release("up", Permit.PROBE)
    assert workers.admissions() == [Permit.PROBE, None]
    workers.later(PROBE_TIMEOUT)
    assert workers.admissions() == [Permit.PROBE, None]


def test_faults_of_single_calls_count_in_a_row_over_all_workers(workers: Workers) -> None:
    first, second = workers.all
    first.failed("up", POLICY, Permit.NORMAL, is_outage=False)
    assert workers.admissions() == HEALTHY
    second.on_success("up")
    second.failed("up", POLICY, Permit.NORMAL, is_outage=False)
    assert workers.admissions() == HEALTHY
    first.failed("up", POLICY, Permit.NORMAL, is_outage=False)
    assert workers.admissions() == [None, None]


def test_an_upstream_that_names_its_time_is_left_alone_for_it_within_a_limit(workers: Workers) -> None:
    outage(workers.all[0], named=30)
    workers.later(29)
    assert workers.admissions() == [None, None]
    workers.later(1)
    assert Permit.PROBE in workers.admissions()
    workers = Workers()
    outage(workers.all[0], named=86_400)
    workers.later(MAX_COOLDOWN)
    assert Permit.PROBE in workers.admissions()


def test_without_a_cooldown_nobody_is_left_alone(workers: Workers) -> None:
    workers.all[0].failed("up", RoutePolicy(cooldown=0), Permit.NORMAL, is_outage=True)
    assert workers.admissions() == HEALTHY


def test_workers_share_what_they_measure(workers: Workers) -> None:
    balancers = [LeastLatency(["up", "other"], lambda: workers.now) for _ in workers.all]
    for worker, balancer in zip(workers.all, balancers, strict=True):
        worker.share_latencies(balancer.latencies)
    balancers[0].answered("up", 5.0)
    balancers[0].answered("other", 0.1)
    workers.admissions()
    workers.admissions()
    assert balancers[1].order() == ["other", "up"]
