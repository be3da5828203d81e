"""Answers that take their time to begin: comments until then, and in the stream whatever comes of it, an error too.

The first piece of a stream may take long: a model thinks, a local one is loaded. So that its failure can still have a
status, nothing is sent before it is there; so that nothing on the way cuts the silent connection, that has an end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from flask import Response

from openai_compat.core.errors import OpenAICompatError
from openai_compat.core.streams import HEARTBEAT, BackgroundStart, Heartbeat
from openai_compat.core.types import CallContext, Usage

from .request_context import RequestContext
from .sse import HEADERS, ClosableStream, StreamBody, stream_response, to_error_event

SourceT = TypeVar("SourceT", bound=ClosableStream)


def start_or_defer(start: Callable[[], SourceT], context: CallContext) -> SourceT | BackgroundStart[SourceT]:
    """What `start` starts, or the pending start when that takes longer than a client may be left without a sign."""
    if not context.heartbeat_interval:
        return start()
    pending = BackgroundStart(start)
    return pending.result() if pending.wait(context.heartbeat_interval) else pending


def deferred_response(
    call: RequestContext,
    context: CallContext,
    pending: BackgroundStart[SourceT],
    to_stream: Callable[[SourceT], Iterator[bytes | Heartbeat]],
    *,
    headers: Mapping[str, str] = HEADERS,
    to_error: Callable[[OpenAICompatError], bytes] | None = to_error_event,
) -> Response:
    """A stream that begins with comments; what `pending` comes to is told within it, an error too."""
    events = DeferredStream(pending, context.heartbeat_interval, to_stream)
    return stream_response(StreamBody(call, events, events, to_error=to_error), headers)


class DeferredStream(Iterator["bytes | Heartbeat"], Generic[SourceT]):
    """Silence until the answer has begun, then its events. Closing it closes the answer, now or when it comes."""

    def __init__(
        self,
        pending: BackgroundStart[SourceT],
        heartbeat_interval: float,
        to_stream: Callable[[SourceT], Iterator[bytes | Heartbeat]],
    ) -> None:
        self._pending = pending
        self._silence_seconds = heartbeat_interval
        self._to_stream = to_stream
        self._events: Iterator[bytes | Heartbeat] | None = None
        self._has_spoken = False

    def __next__(self) -> bytes | Heartbeat:
        if self._events is None:
            # The wait for the answer was a silence already: the first sign goes out at once.
            if not self._has_spoken or not self._pending.wait(self._silence_seconds):
                self._has_spoken = True
                return HEARTBEAT
            self._events = self._to_stream(self._pending.result())
        return next(self._events)

    @property
    def usage(self) -> Usage | None:
        if self._events is None:
            return None
        return self._pending.result().usage

    def close(self) -> None:
        self._pending.close()
