"""The one response path of all inference endpoints.

It starts an answer and sends it complete or as a stream.

The first token may take long: a model thinks, a local one is loaded. Nothing is sent before it arrives, so that a
failure can still have its HTTP status. After the heartbeat interval the response starts with keep-alive comments, so
that no proxy closes the idle connection, and later failures are reported inside the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from flask import Response

from openai_compat.core.errors import UpstreamError
from openai_compat.core.observation import MAX_KEPT_BYTES
from openai_compat.core.streams import HEARTBEAT, BackgroundStart, Heartbeat
from openai_compat.core.types import CallContext, Usage
from openai_compat.services.event_stream import CompleteAnswer, EventStream
from openai_compat.services.inference import Answer

from .json_response import BytesResponse
from .request_context import RequestContext
from .sse import OPENAI_FORMAT, StreamFormat, stream_response, to_stream_body


def respond(
    context: RequestContext,
    call_context: CallContext,
    start: Callable[[], Answer],
    stream_format: StreamFormat = OPENAI_FORMAT,
) -> Response:
    """Return the response to the answer that `start` gives, a deferred one if the first token takes long.

    Raises:
        OpenAICompatError: what `start` raises within the heartbeat interval.
    """
    if not call_context.heartbeat_interval:
        answer = start()
    else:
        pending = BackgroundStart(start)
        if not pending.wait(call_context.heartbeat_interval):
            deferred = DeferredStream(pending, call_context.heartbeat_interval, context)
            return stream_response(to_stream_body(context, deferred, deferred, stream_format), stream_format.headers)
        answer = pending.result()
    context.note_first_token()
    if isinstance(answer, CompleteAnswer):
        context.record_usage(answer.usage)
        context.answer_bytes = len(answer.body)
        if context.trace is not None and context.trace.answer is not None:
            context.trace.answer.append(answer.body)
        if context.bodies is not None:
            context.bodies.answer.append(answer.body[:MAX_KEPT_BYTES])
        return BytesResponse(answer.body, answer.status, answer.headers)
    body = to_stream_body(context, iter(answer), answer, stream_format)
    return stream_response(body, {**answer.headers, **stream_format.headers})


class DeferredStream(Iterator["bytes | Heartbeat"]):
    """Heartbeats until the answer has started, then its events. `close()` closes the answer, now or when it starts."""

    def __init__(self, pending: BackgroundStart[Answer], heartbeat_interval: float, context: RequestContext) -> None:
        self._context = context
        self._pending = pending
        self._heartbeat_interval = heartbeat_interval
        self._events: Iterator[bytes | Heartbeat] | None = None
        self._source: EventStream | None = None
        self._has_begun = False

    def __next__(self) -> bytes | Heartbeat:
        if self._events is None:
            # The wait for the answer was an idle gap already: the first heartbeat is sent at once.
            if not self._has_begun or not self._pending.wait(self._heartbeat_interval):
                self._has_begun = True
                return HEARTBEAT
            answer = self._pending.result()
            assert isinstance(answer, EventStream)  # noqa: S101 - only streamed calls have heartbeats
            self._context.note_first_token()
            self._source, self._events = answer, iter(answer)
        return next(self._events)

    @property
    def usage(self) -> Usage | None:
        return None if self._source is None else self._source.usage

    @property
    def failure(self) -> UpstreamError | None:
        return None if self._source is None else self._source.failure

    def close(self) -> None:
        self._pending.close()
