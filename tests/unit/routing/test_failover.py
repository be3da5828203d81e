"""The way of a call through its plan, with targets that do what the test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from openai_compat.backends.base import Backend, NoOptions
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import (
    CallCancelledError,
    CapabilityError,
    OpenAICompatError,
    UpstreamAuthenticationError,
    UpstreamConnectionError,
    UpstreamStatusError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
)
from openai_compat.core.settings import ModelConfig, RoutePolicy, Settings, Timeouts
from openai_compat.core.types import CallContext
from openai_compat.routing.circuit_breaker import CircuitBreaker, Permit
from openai_compat.routing.failover import FailoverExecutor
from openai_compat.routing.load_balancer import WeightedRandom
from openai_compat.routing.route import RoutePlan, Target
from openai_compat.state.memory import MemoryStore
from tests.unit.routing.test_policies import refusal

Script = Sequence["OpenAICompatError | str"]
DEFAULT = RoutePolicy()


class Rehearsal:
    """A plan over `scripts`: what each target does, try by try; its last line holds for all further tries."""

    def __init__(self, scripts: dict[str, Script], policy: RoutePolicy = DEFAULT, **entries: ModelConfig) -> None:
        self.scripts = {name: list(script) for name, script in scripts.items()}
        self.asked: list[str] = []
        names = list(scripts)
        targets = {
            name: Target(name, Backend(entries.get(name, ModelConfig(name, "echo")), NoOptions(), RESOURCES))
            for name in names
        }
        self.health = CircuitBreaker(MemoryStore(), names)
        fallbacks = [targets[name] for name in names[1:]]
        first = {names[0]: targets[names[0]]}
        self.plan = RoutePlan(policy, first, fallbacks, WeightedRandom({names[0]: 1.0}), self.health)

    def attempt(self, target: Target, context: CallContext) -> str:
        self.asked.append(target.model)
        script = self.scripts[target.model]
        line = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(line, str):
            return line
        raise line

    def failover(self, context: CallContext | None = None, **options: Any) -> FailoverExecutor[str]:
        return FailoverExecutor(self.plan, context or CallContext("req_1"), **options)

    def answer(self, **options: Any) -> str:
        begun = self.failover(**options).run(self.attempt)
        begun.ended()
        begun.close()
        return begun.result


RESOURCES: Any = BackendResources(Settings(), None)  # type: ignore[arg-type]  # nothing is forwarded here
BAD = UpstreamTruncatedError("cut")


def test_a_fault_once_is_asked_again_at_the_same_target() -> None:
    rehearsal = Rehearsal({"a": [refusal(500), "from a"], "b": ["from b"]})
    assert (rehearsal.answer(), rehearsal.asked) == ("from a", ["a", "a"])


def test_a_fault_that_stays_goes_to_the_fallback_and_then_to_the_next() -> None:
    rehearsal = Rehearsal({"a": [refusal(500)], "b": [UpstreamConnectionError("no")], "c": ["from c"]})
    assert (rehearsal.answer(), rehearsal.asked) == ("from c", ["a", "a", "b", "b", "c"])


def test_what_happened_can_be_told() -> None:
    rehearsal = Rehearsal({"a": [refusal(500)], "b": ["from b"]})
    failover = rehearsal.failover()
    failover.run(rehearsal.attempt)
    assert (failover.attempts, failover.target and failover.target.model, failover.is_fallback) == (3, "b", True)


def test_the_last_failure_is_told_when_nobody_answers() -> None:
    rehearsal = Rehearsal({"a": [refusal(500)], "b": [refusal(503, "last")]}, RoutePolicy(retries=0))
    with pytest.raises(UpstreamStatusError) as raised:
        rehearsal.answer()
    assert raised.value.code == "last"


@pytest.mark.parametrize("error", [refusal(400, "content_filter"), refusal(401), UpstreamAuthenticationError("no")])
def test_what_nobody_mends_by_asking_again_gets_exactly_one_try(error: OpenAICompatError) -> None:
    rehearsal = Rehearsal({"a": [error], "b": ["from b"]})
    with pytest.raises(type(error)):
        rehearsal.answer()
    assert rehearsal.asked == ["a"]


def test_a_named_wait_is_waited_and_a_long_one_is_not() -> None:
    short = Rehearsal({"a": [refusal(429, retry_after="0.2"), "from a"], "b": ["from b"]})
    began = time.monotonic()
    assert short.answer() == "from a"
    assert time.monotonic() - began >= 0.2
    long = Rehearsal({"a": [refusal(429, retry_after="60"), "from a"], "b": ["from b"]})
    assert (long.answer(), long.asked) == ("from b", ["a", "b"])


def test_silence_is_not_asked_again() -> None:
    rehearsal = Rehearsal({"a": [UpstreamTimeoutError("slow")], "b": ["from b"]})
    assert (rehearsal.answer(), rehearsal.asked) == ("from b", ["a", "b"])


def window(tokens: int | None) -> ModelConfig:
    return ModelConfig("x", "echo", context_window=tokens)


@pytest.mark.parametrize(
    ("windows", "policy", "answers"),
    [
        ((8, 16), "larger", True),
        ((8, 8), "larger", False),
        ((16, 8), "larger", False),
        ((8, None), "larger", False),
        ((None, 16), "larger", False),
        ((None, None), "always", True),
    ],
)
def test_a_prompt_that_is_too_long_goes_to_a_larger_window(
    windows: tuple[int | None, int | None], policy: Any, *, answers: bool
) -> None:
    too_long = refusal(400, "context_length_exceeded")
    entries = {"a": window(windows[0]), "b": window(windows[1])}
    rehearsal = Rehearsal({"a": [too_long], "b": ["from b"]}, RoutePolicy(context_overflow=policy), **entries)
    if answers:
        assert rehearsal.answer() == "from b"
    else:
        with pytest.raises(UpstreamStatusError):
            rehearsal.answer()
    assert rehearsal.asked == (["a", "b"] if answers else ["a"])
    assert rehearsal.health.try_acquire("a") is Permit.NORMAL


def test_the_next_caller_does_not_try_what_is_left_alone() -> None:
    rehearsal = Rehearsal({"a": [refusal(503)], "b": ["from b"]})
    assert [rehearsal.answer(), rehearsal.answer()] == ["from b", "from b"]
    assert rehearsal.asked == ["a", "a", "b", "b"]


def test_a_target_that_recovers_within_its_tries_is_not_left_alone() -> None:
    rehearsal = Rehearsal({"a": [refusal(503), "from a"], "b": ["from b"]})
    assert [rehearsal.answer(), rehearsal.answer()] == ["from a", "from a"]


def test_who_is_left_alone_is_asked_when_nobody_else_answers() -> None:
    rehearsal = Rehearsal({"a": [refusal(503), refusal(503), "from a"], "b": ["from b", refusal(500)]})
    assert rehearsal.answer() == "from b"
    assert rehearsal.answer() == "from a"


def test_a_probe_gets_one_try() -> None:
    rehearsal = Rehearsal(
        {"a": [refusal(503)], "b": ["from b"]}, RoutePolicy(retries=3, cooldown=0.01, max_retry_wait=0.01)
    )
    rehearsal.answer()
    tries = len(rehearsal.asked)
    time.sleep(0.1)  # beyond the cooldown, and the age of the view
    rehearsal.answer()
    assert rehearsal.asked[tries:] == ["a", "b"]


def test_a_fallback_that_lacks_a_capability_does_not_hide_the_failure() -> None:
    rehearsal = Rehearsal({"a": [refusal(500)], "b": [CapabilityError("cannot")]})
    with pytest.raises(UpstreamStatusError):
        rehearsal.answer()


def test_a_call_with_effects_is_repeated_only_where_nothing_was_done() -> None:
    risky = Rehearsal({"a": [refusal(500)], "b": ["from b"]})
    with pytest.raises(UpstreamStatusError):
        risky.answer(may_repeat=False)
    assert risky.asked == ["a"]
    safe = Rehearsal({"a": [refusal(429)], "b": ["from b"]})
    assert safe.answer(may_repeat=False) == "from b"


def test_the_rest_of_the_plan_goes_on_where_it_stopped() -> None:
    rehearsal = Rehearsal({"a": ["from a"], "b": [BAD], "c": ["from c"]}, RoutePolicy(retries=0))
    failover = rehearsal.failover()
    assert failover.run(rehearsal.attempt).result == "from a"
    assert failover.has_more
    assert failover.run(rehearsal.attempt).result == "from c"
    assert not failover.has_more


def cancelled_soon(context: CallContext) -> None:
    threading.Timer(0.1, context.cancellation.cancel).start()


def test_a_client_that_leaves_during_a_wait_ends_it() -> None:
    rehearsal = Rehearsal({"a": [refusal(429, retry_after="30")], "b": ["from b"]}, RoutePolicy(max_retry_wait=60))
    context = CallContext("req_1")
    cancelled_soon(context)
    began = time.monotonic()
    with pytest.raises(CallCancelledError):
        rehearsal.failover(context).run(rehearsal.attempt)
    assert time.monotonic() - began < 10
    assert rehearsal.asked == ["a"]


class Waiting(Rehearsal):
    """Its first target is silent until its cancellation; it notes what it was given."""

    cancelled = 0

    def attempt(self, target: Target, context: CallContext) -> str:
        if target.model == "a":
            self.asked.append("a")
            woken = threading.Event()
            context.cancellation.on_cancel(woken.set)
            assert woken.wait(20)
            self.cancelled += 1
            raise CallCancelledError
        return super().attempt(target, context)


def patient(seconds: float) -> ModelConfig:
    return ModelConfig("a", "echo", timeouts=replace(Timeouts(), first_token=seconds))


def test_a_first_token_that_does_not_come_is_waited_for_no_longer_than_the_limit() -> None:
    waiting = Waiting({"a": ["-"], "b": ["from b"]}, a=patient(0.1))
    assert waiting.answer(limits_first_token=True) == "from b"
    assert (waiting.asked, waiting.cancelled) == (["a", "b"], 1)


def test_a_client_that_leaves_before_the_first_token_is_not_the_upstreams_fault() -> None:
    waiting = Waiting({"a": ["-"], "b": ["from b"]}, a=patient(30))
    context = CallContext("req_1")
    cancelled_soon(context)
    with pytest.raises(CallCancelledError):
        waiting.failover(context, limits_first_token=True).run(waiting.attempt)
    assert waiting.asked == ["a"]
    assert waiting.health.try_acquire("a") is Permit.NORMAL
    assert not context.cancellation._callbacks


def test_an_answer_that_comes_too_late_is_closed() -> None:
    class Late:
        is_closed = False

        def close(self) -> None:
            self.is_closed = True

    late = Late()

    def attempt(target: Target, context: CallContext) -> Late:
        if target.model == "b":
            return Late()
        woken = threading.Event()
        context.cancellation.on_cancel(woken.set)
        assert woken.wait(20)
        return late

    rehearsal = Rehearsal({"a": ["-"], "b": ["from b"]}, a=patient(0.1))
    failover: FailoverExecutor[Late] = FailoverExecutor(rehearsal.plan, CallContext("req_1"), limits_first_token=True)
    assert failover.run(attempt).target.model == "b"
    assert late.is_closed


def test_an_answer_in_time_lifts_the_limit() -> None:
    rehearsal = Rehearsal({"a": ["from a"]}, a=patient(0.4))
    context = CallContext("req_1")
    given: list[CallContext] = []

    def attempt(target: Target, context: CallContext) -> str:
        given.append(context)
        return rehearsal.attempt(target, context)

    begun = rehearsal.failover(context, limits_first_token=True).run(attempt)
    time.sleep(0.5)
    assert not given[0].cancellation.is_cancelled
    context.cancellation.cancel()
    assert given[0].cancellation.is_cancelled
    begun.close()


def test_every_try_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    rehearsal = Rehearsal({"a": [refusal(500)], "b": ["from b"]})
    for name in ("began", "ended"):
        monkeypatch.setattr(rehearsal.plan.balancer, name, lambda target, name=name: calls.append(f"{name} {target}"))
    rehearsal.answer()
    assert calls == ["began a", "ended a"] * 2 + ["began b", "ended b"]


def test_a_fault_of_this_program_is_raised_as_it_is() -> None:
    rehearsal = Rehearsal({"a": ["-"], "b": ["from b"]})

    def attempt(target: Target, context: CallContext) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        rehearsal.failover().run(attempt)
