"""Answers of models that have a plan: several targets or tries, and headers that say what happened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Protocol

from flask import Response

from openai_compat.backends.base import SupportsForwarding
from openai_compat.core.streams import Pending, Silence
from openai_compat.core.types import CallContext, Usage
from openai_compat.routing.failover import Failover
from openai_compat.routing.route import Plan, Target
from openai_compat.services.failover_streams import EventSource, RoutedEvents
from openai_compat.services.first_content import held_until_it_speaks
from openai_compat.services.forwarding import ForwardedAnswer, ForwardedRefusalError, ForwardedStream, forward_or_raise
from openai_compat.services.inference_call import InferenceCall
from openai_compat.services.preparation import is_rebuilt
from openai_compat.services.stream_recovery import ContinuedEvents

from .deferred import begin, late_response
from .request_context import Call
from .responses import WholeResponse
from .sse import DONE, HEADERS, StreamBody, stream_response, to_event


class Typed(Protocol):
    """How a door asks a backend that does not speak OpenAI's protocol."""

    def whole(self, target: Target, context: CallContext) -> ForwardedAnswer: ...

    def stream(self, call: InferenceCall, target: Target, context: CallContext) -> EventSource: ...


def answer_by_plan(plan: Plan, typed: Typed, inference: InferenceCall, call: Call, context: CallContext) -> Response:
    """The answer of the first target that has one. What a stored completion leaves behind must not be there twice."""
    may_repeat = not inference.payload.get("store")
    try:
        if inference.is_streamed:
            streams: Failover[EventSource] = Failover(plan, context, limits_first_token=True, may_repeat=may_repeat)
            return _streamed(plan, streams, typed, inference, call, context)
        return _whole(Failover(plan, context, may_repeat=may_repeat), typed, inference, call)
    except ForwardedRefusalError as refusal:
        return WholeResponse(refusal.answer.body, refusal.answer.status, refusal.answer.headers)


def _whole(failover: Failover[ForwardedAnswer], typed: Typed, inference: InferenceCall, call: Call) -> Response:
    def attempt(target: Target, context: CallContext) -> ForwardedAnswer:
        if isinstance(target.backend, SupportsForwarding) and not is_rebuilt(target.backend, inference):
            answer = forward_or_raise(target.backend, inference.for_model(target.model), context)
            assert isinstance(answer, ForwardedAnswer)  # noqa: S101 - only a call for a stream gets one
            return answer
        return typed.whole(target, context)

    try:
        begun = failover.answer(attempt)
    finally:
        note_route(call, failover)
    begun.ended()
    begun.close()
    call.note_usage(begun.result.usage)
    return WholeResponse(begun.result.body, begun.result.status, begun.result.headers)


def _streamed(
    plan: Plan,
    failover: Failover[EventSource],
    typed: Typed,
    inference: InferenceCall,
    call: Call,
    context: CallContext,
) -> Response:
    def ask(asked: InferenceCall, target: Target, context: CallContext) -> EventSource:
        if not isinstance(target.backend, SupportsForwarding) or is_rebuilt(target.backend, asked):
            return typed.stream(asked, target, context)
        return ForwardedSource(forward_or_raise(target.backend, asked.for_model(target.model), context))

    def start() -> RoutedEvents | ContinuedEvents:
        try:
            begun = failover.answer(lambda target, context: ask(inference, target, context))
        finally:
            note_route(call, failover)
        if plan.policy.midstream == "continue":
            return ContinuedEvents(failover, begun, inference, ask, context.silence_seconds)
        return RoutedEvents(begun)

    started = begin(start, context)
    if isinstance(started, Pending):
        return late_response(call, context, started, lambda events: events)
    return stream_response(StreamBody(call, started, started), {**started.headers, **HEADERS})


class ForwardedSource:
    """A forwarded stream from its first piece on; an answer that came whole all the same is its one event."""

    def __init__(self, result: ForwardedAnswer | ForwardedStream) -> None:
        self._result = result
        self.headers = result.headers
        try:
            self.events: Iterator[bytes | Silence] = self._to_events(result)
        except BaseException:
            result.close()
            raise

    @staticmethod
    def _to_events(result: ForwardedAnswer | ForwardedStream) -> Iterator[bytes | Silence]:
        if isinstance(result, ForwardedStream):
            return held_until_it_speaks(result.events)
        return iter([to_event(json.loads(result.body)), DONE])

    @property
    def usage(self) -> Usage | None:
        return self._result.usage

    @property
    def has_failed(self) -> bool:
        return isinstance(self._result, ForwardedStream) and self._result.has_failed

    def close(self) -> None:
        self._result.close()


def note_route(call: Call, failover: Failover[Any]) -> None:
    """Tells the log who was asked last, and the client where that can still be told."""
    target = failover.target
    if target is None:
        return
    call.facts.update(upstream=target.model, attempts=failover.attempts)
    call.reply_headers |= {
        "x-openai-compat-upstream": target.model,
        "x-openai-compat-attempts": str(failover.attempts),
        "x-openai-compat-fallback": "true" if failover.is_fallback else "false",
    }
