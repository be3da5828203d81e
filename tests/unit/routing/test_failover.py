"""Failover of a call along its route plan, with scripted targets, a fake clock and fake timers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from openai_compat.backends.base import Backend, NoOptions
from openai_compat.backends.resources import BackendResources
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import (
    CallCancelledError,
    CapabilityError,
    InvalidRequestError,
    OpenAICompatError,
    UpstreamAuthenticationError,
    UpstreamConnectError,
    UpstreamConnectionError,
    UpstreamStatusError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
)
from openai_compat.core.settings import ModelConfig, RoutePolicy, Settings
from openai_compat.core.timeouts import Timeouts
from openai_compat.core.types import CallContext
from openai_compat.routing.circuit_breaker import CircuitBreaker, Permit
from openai_compat.routing.failover import FailoverExecutor, FirstTokenTimeout, Timing
from openai_compat.routing.load_balancer import LeastLatency, WeightedRandom
from openai_compat.routing.route import RoutePlan, Target
from openai_compat.state.memory import MemoryStore
from tests.unit.routing.test_failure_policy import status_error

Script = Sequence["OpenAICompatError | str"]
DEFAULT = RoutePolicy()


class FakeTimer:
    """A timer that fires when the test says so."""

    def __init__(self, seconds: float, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.seconds = seconds
        self._function = function
        self._arguments = arguments
        self.is_running = False

    def start(self) -> None:
        self.is_running = True

    def cancel(self) -> None:
        self.is_running = False

    def fire(self) -> None:
        if self.is_running:
            self._function(*self._arguments)


class FailoverScenario:
    """A plan over `scripts`, which list what each target does, attempt by attempt. The last item is repeated.

    The first target is the plan's own, the others are its fallbacks. `called` and `waits` record what happened.
    """

    def __init__(self, scripts: dict[str, Script], policy: RoutePolicy = DEFAULT, **entries: ModelConfig) -> None:
        self.scripts = {name: list(script) for name, script in scripts.items()}
        self.called: list[str] = []
        self.waits: list[float] = []
        self.timers: list[FakeTimer] = []
        self.now = 1_000_000.0
        names = list(scripts)
        targets = {
            name: Target(name, Backend(entries.get(name, ModelConfig(name, "echo")), NoOptions(), RESOURCES))
            for name in names
        }
        self.breaker = CircuitBreaker(MemoryStore(self.clock), names, self.clock)
        fallbacks = [targets[name] for name in names[1:]]
        first = {names[0]: targets[names[0]]}
        self.plan = RoutePlan(policy, first, fallbacks, WeightedRandom({names[0]: 1.0}), self.breaker)

    def clock(self) -> float:
        return self.now

    def sleep(self, cancellation: CancellationToken, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        cancellation.raise_if_cancelled()

    def start_timer(self, seconds: float, function: Callable[..., None], arguments: tuple[Any, ...]) -> FakeTimer:
        timer = FakeTimer(seconds, function, arguments)
        self.timers.append(timer)
        return timer

    def start(self, target: Target, context: CallContext) -> str:
        self.called.append(target.model)
        script = self.scripts[target.model]
        outcome = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(outcome, str):
            return outcome
        raise outcome

    def executor(self, context: CallContext | None = None, **options: Any) -> FailoverExecutor[Any]:
        return FailoverExecutor(
            self.plan,
            context or CallContext("req_1"),
            timing=Timing(self.clock, self.sleep, self.start_timer),
            **options,
        )

    def run(self, **options: Any) -> str:
        attempt = self.executor(**options).run(self.start)
        attempt.record_success()
        attempt.close()
        return str(attempt.result)


RESOURCES: Any = BackendResources(Settings(), None)  # type: ignore[arg-type]  # nothing is forwarded here
TRUNCATED = UpstreamTruncatedError("cut")


def test_a_fault_is_retried_at_the_same_target() -> None:
    scenario = FailoverScenario({"a": [status_error(500), "from a"], "b": ["from b"]})
    assert (scenario.run(), scenario.called) == ("from a", ["a", "a"])


def test_a_fault_that_persists_goes_to_the_fallbacks_in_order() -> None:
    scenario = FailoverScenario({"a": [status_error(500)], "b": [UpstreamConnectionError("no")], "c": ["from c"]})
    assert (scenario.run(), scenario.called) == ("from c", ["a", "a", "b", "b", "c"])


def test_the_executor_reports_attempts_target_and_fallback() -> None:
    scenario = FailoverScenario({"a": [status_error(500)], "b": ["from b"]})
    executor = scenario.executor()
    executor.run(scenario.start)
    assert (executor.attempts, executor.target and executor.target.model, executor.is_fallback) == (3, "b", True)


NOT_FOUND, BAD_REQUEST = status_error(404, "model_not_found"), status_error(400, "bad")
TOO_LONG = status_error(400, "context_length_exceeded")
OUR_KEY = UpstreamAuthenticationError("no")


@pytest.mark.parametrize(
    "refusal",
    [NOT_FOUND, BAD_REQUEST, TOO_LONG, OUR_KEY, status_error(401), status_error(501), InvalidRequestError("no")],
    ids=["404", "400", "too long", "our key", "caller's key", "501", "invalid here"],
)
def test_a_fallback_that_refuses_does_not_end_the_chain(refusal: OpenAICompatError) -> None:
    scenario = FailoverScenario({"a": [status_error(503)], "b": [refusal], "c": ["from c"]}, RoutePolicy(retries=0))
    assert (scenario.run(), scenario.called) == ("from c", ["a", "b", "c"])


@pytest.mark.parametrize(
    ("first", "others", "raised"),
    [
        (status_error(503, "first"), [status_error(500, "last")], "a"),
        (status_error(503), [NOT_FOUND], "a"),
        (status_error(503), [OUR_KEY], "a"),
        (status_error(503), [TOO_LONG], "a"),
        (status_error(503), [status_error(400, "unsupported_parameter")], "a"),
        (status_error(503), [BAD_REQUEST, status_error(500)], "b"),
        (TOO_LONG, [status_error(500)], "a"),
        (OUR_KEY, [NOT_FOUND], "a"),
    ],
)
def test_when_all_targets_fail_the_most_useful_error_is_raised(
    first: OpenAICompatError, others: list[OpenAICompatError], raised: str
) -> None:
    errors = dict(zip("abc", [first, *others], strict=False))
    scenario = FailoverScenario({name: [error] for name, error in errors.items()}, RoutePolicy(retries=0))
    executor = scenario.executor()
    with pytest.raises(OpenAICompatError) as caught:
        executor.run(scenario.start)
    assert caught.value is errors[raised]
    assert scenario.called == list(errors)
    assert executor.target is not None
    assert executor.target.model == raised


def test_the_error_of_the_target_counts_more_than_that_of_a_fallback_asked_before_it() -> None:
    scenario = FailoverScenario({"a": [status_error(503, "first")], "b": [NOT_FOUND]}, RoutePolicy(retries=0))
    for _ in range(2):
        with pytest.raises(UpstreamStatusError) as raised:
            scenario.run()
        assert raised.value.code == "first"
    assert scenario.called == ["a", "b", "b", "a"]


def test_a_wrong_request_does_not_reach_a_target_with_an_open_circuit() -> None:
    scenario = FailoverScenario({"a": [status_error(503)], "b": ["from b", BAD_REQUEST]}, RoutePolicy(retries=0))
    scenario.run()
    with pytest.raises(UpstreamStatusError) as raised:
        scenario.run()
    assert (raised.value.code, scenario.called) == ("bad", ["a", "b", "b"])


def test_a_target_that_refuses_this_servers_key_falls_back_and_its_circuit_opens(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scenario = FailoverScenario({"a": [OUR_KEY], "b": ["from b"]})
    assert [scenario.run(), scenario.run()] == ["from b", "from b"]
    assert scenario.called == ["a", "b", "b"]
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == ["'a' failed for this call: no"]


@pytest.mark.parametrize("error", [status_error(400, "content_filter"), status_error(401), status_error(404)])
def test_a_fatal_error_gets_exactly_one_attempt(error: OpenAICompatError) -> None:
    scenario = FailoverScenario({"a": [error], "b": ["from b"]})
    with pytest.raises(type(error)):
        scenario.run()
    assert scenario.called == ["a"]


def test_a_retry_waits_as_long_as_the_upstream_requests() -> None:
    scenario = FailoverScenario({"a": [status_error(429, retry_after="0.2"), "from a"], "b": ["from b"]})
    assert (scenario.run(), scenario.called) == ("from a", ["a", "a"])
    assert len(scenario.waits) == 1
    assert 0.2 <= scenario.waits[0] <= 0.22


def test_a_requested_delay_above_the_maximum_falls_back_at_once() -> None:
    scenario = FailoverScenario({"a": [status_error(429, retry_after="60"), "from a"], "b": ["from b"]})
    assert (scenario.run(), scenario.called, scenario.waits) == ("from b", ["a", "b"], [])


def test_a_timeout_is_not_retried() -> None:
    scenario = FailoverScenario({"a": [UpstreamTimeoutError("slow")], "b": ["from b"]})
    assert (scenario.run(), scenario.called) == ("from b", ["a", "b"])


def window(tokens: int | None) -> ModelConfig:
    return ModelConfig("x", "echo", context_window=tokens)


@pytest.mark.parametrize(
    ("windows", "policy", "falls_back"),
    [
        ((8, 16), "larger", True),
        ((8, 8), "larger", False),
        ((16, 8), "larger", False),
        ((8, None), "larger", True),
        ((None, 16), "larger", True),
        ((None, None), "larger", True),
        ((16, 8), "always", True),
    ],
)
def test_a_prompt_that_is_too_long_falls_back_to_a_larger_context_window(
    windows: tuple[int | None, int | None], policy: Any, *, falls_back: bool
) -> None:
    too_long = status_error(400, "context_length_exceeded")
    entries = {"a": window(windows[0]), "b": window(windows[1])}
    scenario = FailoverScenario({"a": [too_long], "b": ["from b"]}, RoutePolicy(context_overflow=policy), **entries)
    if falls_back:
        assert scenario.run() == "from b"
    else:
        with pytest.raises(UpstreamStatusError):
            scenario.run()
    assert scenario.called == (["a", "b"] if falls_back else ["a"])
    assert scenario.breaker.try_acquire("a") is Permit.NORMAL


def test_the_next_call_skips_a_target_with_an_open_circuit() -> None:
    scenario = FailoverScenario({"a": [status_error(503)], "b": ["from b"]})
    assert [scenario.run(), scenario.run()] == ["from b", "from b"]
    assert scenario.called == ["a", "a", "b", "b"]


def test_a_successful_retry_leaves_the_circuit_closed() -> None:
    scenario = FailoverScenario({"a": [status_error(503), "from a"], "b": ["from b"]})
    assert [scenario.run(), scenario.run()] == ["from a", "from a"]


def test_a_target_with_an_open_circuit_is_the_last_resort() -> None:
    scenario = FailoverScenario(
        {"a": [status_error(503), status_error(503), "from a"], "b": ["from b", status_error(500)]}
    )
    assert scenario.run() == "from b"
    assert scenario.run() == "from a"


def test_a_probe_is_not_retried() -> None:
    scenario = FailoverScenario({"a": [status_error(503)], "b": ["from b"]}, RoutePolicy(retries=3, cooldown=10))
    scenario.run()
    called_before = len(scenario.called)
    scenario.now += 10
    scenario.run()
    assert scenario.called[called_before:] == ["a", "b"]


def test_a_fallback_without_the_capability_does_not_hide_the_first_error() -> None:
    scenario = FailoverScenario({"a": [status_error(500)], "b": [CapabilityError("cannot")]})
    with pytest.raises(UpstreamStatusError):
        scenario.run()


def test_a_call_with_side_effects_is_repeated_only_if_it_was_not_processed() -> None:
    processed = FailoverScenario({"a": [status_error(500)], "b": ["from b"]})
    with pytest.raises(UpstreamStatusError):
        processed.run(may_repeat=False)
    assert processed.called == ["a"]
    refused = FailoverScenario({"a": [status_error(429)], "b": ["from b"]})
    assert refused.run(may_repeat=False) == "from b"


def test_a_second_run_continues_with_the_remaining_targets() -> None:
    scenario = FailoverScenario({"a": ["from a"], "b": [TRUNCATED], "c": ["from c"]}, RoutePolicy(retries=0))
    executor = scenario.executor()
    assert executor.run(scenario.start).result == "from a"
    assert executor.has_more
    assert executor.run(scenario.start).result == "from c"
    assert not executor.has_more


def test_a_client_disconnect_ends_the_wait_before_a_retry() -> None:
    scenario = FailoverScenario(
        {"a": [status_error(429, retry_after="30")], "b": ["from b"]}, RoutePolicy(max_retry_wait=60)
    )
    context = CallContext("req_1")

    def disconnect_while_waiting(cancellation: CancellationToken, seconds: float) -> None:
        assert 30 <= seconds <= 33
        cancellation.cancel()
        CancellationToken.wait(cancellation, seconds)  # the default, which does not block once it is cancelled

    scenario.sleep = disconnect_while_waiting  # type: ignore[method-assign]
    with pytest.raises(CallCancelledError):
        scenario.executor(context).run(scenario.start)
    assert scenario.called == ["a"]
    assert not context.cancellation._callbacks


def with_first_token_timeout(seconds: float) -> ModelConfig:
    return ModelConfig("a", "echo", timeouts=replace(Timeouts(), first_token=seconds))


class NoFirstToken(FailoverScenario):
    """A scenario in which the first target sends nothing until `event` happens, which cancels it."""

    def __init__(self, event: Callable[[FailoverScenario], None]) -> None:
        super().__init__({"a": ["-"], "b": ["from b"]}, a=with_first_token_timeout(7.0))
        self.event = event

    def start(self, target: Target, context: CallContext) -> str:
        if target.model == "b":
            return super().start(target, context)
        self.called.append("a")
        assert not context.cancellation.is_cancelled
        self.event(self)
        assert context.cancellation.is_cancelled
        raise CallCancelledError


def test_a_target_without_a_first_token_is_given_up_after_the_timeout() -> None:
    scenario = NoFirstToken(lambda scenario: scenario.timers[-1].fire())
    assert scenario.run(limits_first_token=True) == "from b"
    assert scenario.called == ["a", "b"]
    assert [timer.seconds for timer in scenario.timers] == [7.0]


def test_a_client_disconnect_before_the_first_token_is_not_a_fault_of_the_upstream() -> None:
    context = CallContext("req_1")
    scenario = NoFirstToken(lambda _: context.cancellation.cancel())
    with pytest.raises(CallCancelledError):
        scenario.executor(context, limits_first_token=True).run(scenario.start)
    assert scenario.called == ["a"]
    assert scenario.breaker.try_acquire("a") is Permit.NORMAL
    assert not context.cancellation._callbacks
    assert not scenario.timers[0].is_running


def test_an_answer_that_starts_after_the_timeout_is_closed() -> None:
    class Answer:
        is_closed = False

        def close(self) -> None:
            self.is_closed = True

    late, in_time = Answer(), Answer()
    scenario = FailoverScenario({"a": ["-"], "b": ["-"]}, a=with_first_token_timeout(7.0))

    def start(target: Target, context: CallContext) -> Answer:
        if target.model == "b":
            return in_time
        scenario.timers[-1].fire()
        return late

    attempt = scenario.executor(limits_first_token=True).run(start)
    assert attempt.result is in_time
    assert (late.is_closed, in_time.is_closed) == (True, False)


def test_the_first_token_stops_the_timer_but_not_the_clients_cancellation() -> None:
    scenario = FailoverScenario({"a": ["from a"]}, a=with_first_token_timeout(7.0))
    context = CallContext("req_1")
    contexts: list[CallContext] = []

    def start(target: Target, context: CallContext) -> str:
        assert scenario.timers[0].is_running
        contexts.append(context)
        return scenario.start(target, context)

    attempt = scenario.executor(context, limits_first_token=True).run(start)
    assert not scenario.timers[0].is_running
    assert not contexts[0].cancellation.is_cancelled
    context.cancellation.cancel()
    assert contexts[0].cancellation.is_cancelled
    attempt.close()


def test_the_timeout_cancels_its_attempt_and_not_the_call() -> None:
    """Use the default timer."""
    call, cancelled = CancellationToken(), threading.Event()
    timeout = FirstTokenTimeout(call, 0.01)
    timeout.cancellation.on_cancel(cancelled.set)
    assert cancelled.wait(20)
    with pytest.raises(UpstreamTimeoutError):
        timeout.stop()
    assert not call.is_cancelled


def test_the_latency_of_an_attempt_ends_with_its_first_token() -> None:
    scenario = FailoverScenario({"a": ["from a"]})
    balancer = LeastLatency(["a"], scenario.clock)
    scenario.plan = replace(scenario.plan, balancer=balancer)

    def start(target: Target, context: CallContext) -> str:
        scenario.now += 3
        return scenario.start(target, context)

    attempt = scenario.executor().run(start)
    scenario.now += 50
    attempt.close()
    assert balancer.latencies["a"].seconds == 3


def test_every_attempt_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    scenario = FailoverScenario({"a": [status_error(500)], "b": ["from b"]})
    for name in ("on_start", "on_end"):
        monkeypatch.setattr(scenario.plan.balancer, name, lambda target, name=name: calls.append(f"{name} {target}"))
    scenario.run()
    assert calls == ["on_start a", "on_end a"] * 2 + ["on_start b", "on_end b"]


def test_an_unexpected_exception_is_raised_unchanged() -> None:
    scenario = FailoverScenario({"a": ["-"], "b": ["from b"]})

    def start(target: Target, context: CallContext) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        scenario.executor().run(start)


def test_the_largest_window_that_was_exceeded_decides() -> None:
    """Another failure in between does not make a small window large enough."""
    scenario = FailoverScenario(
        {"a": [TOO_LONG], "b": [status_error(500)], "c": ["-"], "d": ["from d"]},
        RoutePolicy(retries=0),
        a=window(8),
        c=window(4),
        d=window(16),
    )
    assert (scenario.run(), scenario.called) == ("from d", ["a", "b", "d"])


class TwoWorkers:
    """Two scenarios whose circuit breakers share a store and a clock, one for each worker."""

    def __init__(self, scripts: dict[str, Script], policy: RoutePolicy) -> None:
        self.first, self.second = FailoverScenario(scripts, policy), FailoverScenario(scripts, policy)
        store = MemoryStore(self.first.clock)
        for worker in (self.first, self.second):
            worker.breaker = CircuitBreaker(store, list(scripts), self.first.clock)
            worker.plan = replace(worker.plan, breaker=worker.breaker)
        self.second.now = self.first.now


@pytest.mark.parametrize("retry_after", ["1.5", "2"])
def test_while_one_call_waits_for_a_rate_limit_those_of_all_workers_fall_back_at_once(retry_after: str) -> None:
    limited = status_error(429, retry_after=retry_after)
    workers = TwoWorkers({"a": [limited, "from a"], "b": ["from b"]}, RoutePolicy(retries=2))
    answers: list[str] = []
    sleep = workers.first.sleep

    def sleep_while_others_call(cancellation: CancellationToken, seconds: float) -> None:
        workers.first.now += 0.1  # the age that a worker's copy of the state may have
        answers.extend(worker.run() for worker in (workers.first, workers.second) * 10)
        sleep(cancellation, seconds)

    workers.first.sleep = sleep_while_others_call  # type: ignore[method-assign]
    assert workers.first.run() == "from a"
    assert answers == ["from b"] * 20
    assert (workers.first.called.count("a"), workers.second.called.count("a")) == (2, 0)
    assert workers.second.waits == []
    workers.second.scripts["a"] = ["from a"]
    workers.first.now += 0.1
    assert [workers.first.run(), workers.second.run()] == ["from a", "from a"]


def test_concurrent_calls_stop_retrying_once_the_circuit_is_open() -> None:
    """The first call gives up while the second one waits for its retry."""
    down = status_error(503)
    workers = TwoWorkers({"a": [down], "b": ["from b"]}, RoutePolicy(retries=3))
    sleep = workers.second.sleep

    def sleep_while_the_first_call_fails(cancellation: CancellationToken, seconds: float) -> None:
        workers.first.now += 0.1
        assert workers.first.run() == "from b"
        sleep(cancellation, seconds)

    workers.second.sleep = sleep_while_the_first_call_fails  # type: ignore[method-assign]
    assert workers.second.run() == "from b"
    assert workers.second.called == ["a", "b"]


def test_a_call_whose_circuit_was_opened_meanwhile_does_not_wait_at_all() -> None:
    scenario = FailoverScenario({"a": [status_error(503)], "b": ["from b"]}, RoutePolicy(retries=3))

    def start(target: Target, context: CallContext) -> str:
        if target.model == "a":
            scenario.breaker.on_failure("a", scenario.plan.policy, Permit.NORMAL, is_outage=True)
        return scenario.start(target, context)

    assert scenario.executor().run(start).result == "from b"
    assert (scenario.called, scenario.waits) == (["a", "b"], [])


def test_without_a_fallback_calls_wait_and_retry_as_before() -> None:
    limited = status_error(429, retry_after="1")
    workers = TwoWorkers({"a": [limited, limited, "from a"]}, RoutePolicy(retries=2))
    assert [workers.first.run(), workers.second.run()] == ["from a", "from a"]
    assert [len(workers.first.waits), len(workers.second.waits)] == [2, 2]


def test_an_answer_that_was_under_way_does_not_close_a_circuit_that_others_opened() -> None:
    scenario = FailoverScenario({"a": ["from a"], "b": ["from b"]})

    def start(target: Target, context: CallContext) -> str:
        scenario.breaker.on_failure("a", scenario.plan.policy, Permit.NORMAL, is_outage=True, retry_after=30)
        return scenario.start(target, context)

    assert scenario.executor().run(start).result == "from a"
    assert scenario.breaker.try_acquire("a") is None


class CallersKeyBackend(Backend):
    """A backend that sends the caller's own credential to its upstream."""

    def sends_caller_credential(self, context: CallContext) -> bool:
        return True


@pytest.mark.parametrize(
    "error",
    [
        status_error(401),
        status_error(403),
        status_error(429, retry_after="1"),
        status_error(429, retry_after="60"),
        status_error(429, "insufficient_quota"),
    ],
    ids=["401", "403", "429", "429 later", "quota"],
)
def test_what_an_upstream_says_about_one_callers_key_does_not_keep_other_callers_away(error: OpenAICompatError) -> None:
    def run(backend_class: type[Backend]) -> tuple[list[str], Permit | None]:
        scenario = FailoverScenario({"a": [error], "b": ["from b"]}, RoutePolicy(retries=1, cooldown=10))
        backend = backend_class(ModelConfig("a", "openai"), NoOptions(), RESOURCES)
        scenario.plan = replace(scenario.plan, targets={"a": Target("a", backend)})
        with suppress(UpstreamStatusError):
            scenario.run()
        return scenario.called, scenario.breaker.try_acquire("a")

    called, permit = run(CallersKeyBackend)
    assert permit is Permit.NORMAL
    assert called == run(Backend)[0]


def test_a_connection_that_was_never_made_is_no_reason_not_to_repeat_a_call_with_side_effects() -> None:
    scenario = FailoverScenario({"a": [UpstreamConnectError("no")], "b": ["from b"]}, RoutePolicy(retries=0))
    assert scenario.run(may_repeat=False) == "from b"


def test_an_error_within_an_answer_ends_a_call_with_side_effects() -> None:
    error = status_error(503)
    error.is_within_answer = True
    scenario = FailoverScenario({"a": [error], "b": ["from b"]})
    with pytest.raises(UpstreamStatusError):
        scenario.run(may_repeat=False)
    assert scenario.called == ["a"]


def test_the_timeouts_of_the_route_replace_those_of_the_model() -> None:
    timeouts = Timeouts(first_byte=1, first_token=2)
    scenario = FailoverScenario({"a": ["-"]}, a=with_first_token_timeout(7.0))
    scenario.plan = replace(scenario.plan, targets={"a": replace(scenario.plan.targets["a"], timeouts=timeouts)})
    contexts: list[CallContext] = []

    def start(target: Target, context: CallContext) -> str:
        contexts.append(context)
        return "from a"

    scenario.executor(limits_first_token=True).run(start).close()
    assert [context.timeouts for context in contexts] == [timeouts]
    assert [timer.seconds for timer in scenario.timers] == [2]


def test_requests_that_were_sent_again_within_an_attempt_are_counted() -> None:
    scenario = FailoverScenario({"a": ["from a"]})
    executor = scenario.executor()

    def start(target: Target, context: CallContext) -> str:
        context.resends.append("127.0.0.1")
        return scenario.start(target, context)

    executor.run(start)
    assert executor.attempts == 2
