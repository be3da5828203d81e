"""Answers of models that have a plan: several targets or tries, and headers that say what happened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Protocol

from flask import Response

from openai_compat.backends.base import SupportsForwarding
from openai_compat.core.streams import BackgroundStart, Heartbeat
from openai_compat.core.types import CallContext, Usage
from openai_compat.routing.failover import FailoverExecutor
from openai_compat.routing.route import RoutePlan, Target
from openai_compat.services.failover_streams import EventStream, FailoverEventStream
from openai_compat.services.first_content import wait_for_first_content
from openai_compat.services.forwarding import ForwardedAnswer, ForwardedStream, UpstreamRefusalError, forward_or_raise
from openai_compat.services.inference_call import InferenceCall
from openai_compat.services.preparation import needs_translation
from openai_compat.services.stream_recovery import RecoveringStream

from .deferred import deferred_response, start_or_defer
from .request_context import RequestContext
from .responses import BytesResponse
from .sse import DONE, HEADERS, StreamBody, stream_response, to_event


class TranslatedBackend(Protocol):
    """How a door asks a backend that does not speak OpenAI's protocol."""

    def whole(self, target: Target, context: CallContext) -> ForwardedAnswer: ...

    def stream(self, call: InferenceCall, target: Target, context: CallContext) -> EventStream: ...


def respond_with_failover(
    plan: RoutePlan, typed: TranslatedBackend, inference: InferenceCall, call: RequestContext, context: CallContext
) -> Response:
    """The answer of the first target that has one. What a stored completion leaves behind must not be there twice."""
    may_repeat = not inference.payload.get("store")
    try:
        if inference.is_streamed:
            streams: FailoverExecutor[EventStream] = FailoverExecutor(
                plan, context, limits_first_token=True, may_repeat=may_repeat
            )
            return _streamed(plan, streams, typed, inference, call, context)
        return _whole(FailoverExecutor(plan, context, may_repeat=may_repeat), typed, inference, call)
    except UpstreamRefusalError as refusal:
        return BytesResponse(refusal.answer.body, refusal.answer.status, refusal.answer.headers)


def _whole(
    failover: FailoverExecutor[ForwardedAnswer],
    typed: TranslatedBackend,
    inference: InferenceCall,
    call: RequestContext,
) -> Response:
    def attempt(target: Target, context: CallContext) -> ForwardedAnswer:
        if isinstance(target.backend, SupportsForwarding) and not needs_translation(target.backend, inference):
            answer = forward_or_raise(target.backend, inference.for_model(target.model), context)
            assert isinstance(answer, ForwardedAnswer)  # noqa: S101 - only a call for a stream gets one
            return answer
        return typed.whole(target, context)

    try:
        begun = failover.run(attempt)
    finally:
        add_route_headers(call, failover)
    begun.ended()
    begun.close()
    call.note_usage(begun.result.usage)
    return BytesResponse(begun.result.body, begun.result.status, begun.result.headers)


def _streamed(
    plan: RoutePlan,
    failover: FailoverExecutor[EventStream],
    typed: TranslatedBackend,
    inference: InferenceCall,
    call: RequestContext,
    context: CallContext,
) -> Response:
    def ask(asked: InferenceCall, target: Target, context: CallContext) -> EventStream:
        if not isinstance(target.backend, SupportsForwarding) or needs_translation(target.backend, asked):
            return typed.stream(asked, target, context)
        return PassthroughStream(forward_or_raise(target.backend, asked.for_model(target.model), context))

    def start() -> FailoverEventStream | RecoveringStream:
        try:
            begun = failover.run(lambda target, context: ask(inference, target, context))
        finally:
            add_route_headers(call, failover)
        if plan.policy.on_stream_break == "continue":
            return RecoveringStream(failover, begun, inference, ask, context.heartbeat_interval)
        return FailoverEventStream(begun)

    started = start_or_defer(start, context)
    if isinstance(started, BackgroundStart):
        return deferred_response(call, context, started, lambda events: events)
    return stream_response(StreamBody(call, started, started), {**started.headers, **HEADERS})


class PassthroughStream:
    """A forwarded stream from its first piece on; an answer that came whole all the same is its one event."""

    def __init__(self, result: ForwardedAnswer | ForwardedStream) -> None:
        self._result = result
        self.headers = result.headers
        try:
            self.events: Iterator[bytes | Heartbeat] = self._to_events(result)
        except BaseException:
            result.close()
            raise

    @staticmethod
    def _to_events(result: ForwardedAnswer | ForwardedStream) -> Iterator[bytes | Heartbeat]:
        if isinstance(result, ForwardedStream):
            return wait_for_first_content(result.events)
        return iter([to_event(json.loads(result.body)), DONE])

    @property
    def usage(self) -> Usage | None:
        return self._result.usage

    @property
    def has_failed(self) -> bool:
        return isinstance(self._result, ForwardedStream) and self._result.has_failed

    def close(self) -> None:
        self._result.close()


def add_route_headers(call: RequestContext, failover: FailoverExecutor[Any]) -> None:
    """Tells the log who was asked last, and the client where that can still be told."""
    target = failover.target
    if target is None:
        return
    call.log_fields.update(upstream=target.model, attempts=failover.attempts)
    call.reply_headers |= {
        "x-openai-compat-upstream": target.model,
        "x-openai-compat-attempts": str(failover.attempts),
        "x-openai-compat-fallback": "true" if failover.is_fallback else "false",
    }
