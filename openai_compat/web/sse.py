"""Response bodies that are event streams, with keep-alive in idle gaps and errors inside the stream."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from flask import Response

from openai_compat.accounts.stream_size import StreamSize
from openai_compat.core.errors import CallCancelledError, OpenAICompatError, UpstreamError
from openai_compat.core.observation import MAX_KEPT_BYTES
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import Usage
from openai_compat.services.inference_call import RESPONSES_PATH
from openai_compat.services.sse_events import to_event

from .errors import log_error, to_known_error
from .request_context import RequestContext

log = logging.getLogger(__name__)

HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}
"""Names in lower case, as in an upstream's headers, so that the two can be merged."""
MAX_TRACED_BYTES: Final = 262_144
"""Length of a streamed answer that is kept for its trace."""
COMMENT: Final = b": keep-alive\n\n"


def to_comment() -> bytes:
    """Return a comment, which every client ignores."""
    return COMMENT


def to_error_event(error: OpenAICompatError) -> bytes:
    """Return the error envelope as an event. Both official clients raise on it (source: their stream parsers)."""
    return to_event(error.to_envelope())


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """What a protocol's streams have besides their events.

    `keep_alive` returns what fills an idle gap, and is None in a format that has nothing for it. `to_error` encodes an
    error after the first byte. Without it the connection is reset, which is the only signal in a format that has no
    errors.
    """

    headers: Mapping[str, str]
    keep_alive: Callable[[], bytes] | None = to_comment
    to_error: Callable[[OpenAICompatError], bytes] | None = to_error_event


OPENAI_FORMAT: Final = StreamFormat(HEADERS)


class ClosableStream(Protocol):
    """The source of a stream. Closing it ends the work behind it."""

    @property
    def usage(self) -> Usage | None: ...

    @property
    def failure(self) -> UpstreamError | None:
        """The error of the upstream that was passed on as an event."""

    def close(self) -> None: ...


class StreamBody:
    """The body of a streamed response. It closes its source on every path."""

    def __init__(
        self,
        context: RequestContext,
        events: Iterator[bytes | Heartbeat],
        source: ClosableStream,
        stream_format: StreamFormat = OPENAI_FORMAT,
        status: int = 200,
    ) -> None:
        context.start_stream()
        self._status = status
        self._context = context
        self._events = events
        self._source = source
        self._format = stream_format
        self._is_over = False

    def __iter__(self) -> StreamBody:
        return self

    def __next__(self) -> bytes:
        while not self._is_over:
            try:
                event = next(self._events)
            except StopIteration:
                self._is_over = True
            except CallCancelledError as error:
                if self._context.cancellation.reason is not None:
                    return self._fail(self._context.cancellation.reason)
                # A client that has only stopped sending may still read: a clean end would look like a complete answer.
                raise ConnectionResetError(errno.ECONNRESET, error.message) from error
            except Exception as error:  # noqa: BLE001 - a response that has begun can report it nowhere else
                return self._fail(error)
            else:
                data = self._fill_gap() if event is HEARTBEAT else event
                if data:
                    return data
        raise StopIteration

    def _fill_gap(self) -> bytes:
        return b"" if self._format.keep_alive is None else self._format.keep_alive()

    def _fail(self, error: Exception) -> bytes:
        self._is_over = True
        known = to_known_error(error)
        log_error(known)
        self._note_error(known)
        if self._format.to_error is None:
            # The WSGI server takes it for the client's reset and closes the connection at once, without a log line.
            raise ConnectionResetError(errno.ECONNRESET, known.message) from error
        return self._format.to_error(known)

    def _note_error(self, error: OpenAICompatError) -> None:
        self._context.error = self._context.log_fields["error"] = error.code or error.type

    def close(self) -> None:
        """Close the source. The WSGI server calls it after the last event and after a client disconnect."""
        if not self._is_over:
            self._context.cancellation.cancel()
        try:
            self._source.close()
            self._context.record_usage(self._source.usage)
            if (failure := self._source.failure) is not None:
                self._note_error(failure)
        finally:
            self._context.close(self._status)


def to_stream_body(
    context: RequestContext,
    events: Iterator[bytes | Heartbeat],
    source: ClosableStream,
    stream_format: StreamFormat,
) -> StreamBody:
    """Return the body of a streamed answer.

    Its tokens are counted if the call is charged, and its events are kept if its trace or the log of calls is to have
    the content.
    """
    body = events if context.admission is None else _count_events(context, events)
    if context.trace is not None and context.trace.answer is not None:
        body = _keep_events(context.trace.answer, MAX_TRACED_BYTES, body)
    if context.bodies is not None:
        body = _keep_events(context.bodies.answer, MAX_KEPT_BYTES, body)
    return StreamBody(context, body, source, stream_format)


def _keep_events(answer: list[bytes], limit: int, events: Iterator[bytes | Heartbeat]) -> Iterator[bytes | Heartbeat]:
    """Yield the events, and keep the first of them until they have `limit` bytes."""
    size = 0
    for event in events:
        if not isinstance(event, Heartbeat) and size < limit:
            size += len(event)
            answer.append(event)
        yield event


def _count_events(context: RequestContext, events: Iterator[bytes | Heartbeat]) -> Iterator[bytes | Heartbeat]:
    """Yield the events. Their tokens are estimated, for a client that disconnects before the usage is known."""
    admission = context.admission
    is_response = admission is not None and admission.call.endpoint == RESPONSES_PATH
    context.streamed = size = StreamSize(has_deltas=is_response)
    for event in events:
        if not isinstance(event, Heartbeat):
            size.add(event)
        yield event


def stream_response(body: StreamBody, headers: Mapping[str, str] = HEADERS) -> Response:
    """Return `body` as a response that neither Flask nor a proxy buffers."""
    return Response(body, 200, dict(headers), direct_passthrough=True)
