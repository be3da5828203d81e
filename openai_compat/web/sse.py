"""Event streams: from values to bytes, and a response body that ends honestly whatever happens."""

from __future__ import annotations

import errno
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

from flask import Response

from openai_compat.core.errors import CallCancelledError, OpenAICompatError
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import Usage

from .errors import log_error, to_known_error
from .request_context import RequestContext

log = logging.getLogger(__name__)

HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}
"""Names in lower case, as in an upstream's headers, so that one set can be laid over the other."""
DONE: Final = b"data: [DONE]\n\n"
COMMENT: Final = b": keep-alive\n\n"
YIELD_EVERY: Final = 32
"""So many events go out before other calls get their turn: about a millisecond's work."""


def to_event(value: Mapping[str, Any]) -> bytes:
    """One `data:` event. Text that UTF-8 cannot hold becomes question marks rather than the end of the stream."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + text.encode("utf-8", "replace") + b"\n\n"


def to_error_event(error: OpenAICompatError) -> bytes:
    """The envelope as an event: both official clients raise on it (source: their stream parsers)."""
    return to_event(error.to_envelope())


def to_events(chunks: Iterator[Mapping[str, Any] | Heartbeat]) -> Iterator[bytes | Heartbeat]:
    """Chunks as events, and OpenAI's end mark after the last: never after an error.

    Other calls of this process get their turn now and then, also where the chunks never have to be waited for.
    """
    for count, chunk in enumerate(chunks, 1):
        yield chunk if isinstance(chunk, Heartbeat) else to_event(chunk)
        if not count % YIELD_EVERY:
            time.sleep(1e-9)  # with 0, gevent would look at other clients' sockets every 50th time only
    yield DONE


class ClosableStream(Protocol):
    """What a stream of events is made from: it knows the usage at the end, and closing it ends the work behind it."""

    @property
    def usage(self) -> Usage | None: ...

    def close(self) -> None: ...


class StreamBody:
    """The body of a streamed response: yields the events, fills silences, tells errors, and closes the source always.

    `to_error` makes the bytes that tell of an error after the first byte; without it the connection is broken off,
    which is the only way to tell in a format that has no place for errors.
    """

    def __init__(
        self,
        call: RequestContext,
        events: Iterator[bytes | Heartbeat],
        source: ClosableStream,
        *,
        comment: bytes = COMMENT,
        to_error: Callable[[OpenAICompatError], bytes] | None = to_error_event,
        status: int = 200,
    ) -> None:
        call.is_streamed = True
        self._status = status
        self._call = call
        self._events = iter(events)
        self._source = source
        self._comment = comment
        self._to_error = to_error
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
                if self._call.cancellation.reason is not None:
                    return self._told(self._call.cancellation.reason)
                # A client that has only stopped sending may still read: a clean end would look like a whole answer.
                raise ConnectionResetError(errno.ECONNRESET, error.message) from error
            except Exception as error:  # noqa: BLE001 - a response that has begun has no other place to tell
                return self._told(error)
            else:
                data = self._comment if isinstance(event, Heartbeat) else event
                if data:
                    return data
        raise StopIteration

    def _told(self, error: Exception) -> bytes:
        self._is_over = True
        known = to_known_error(error)
        log_error(known)
        self._call.log_fields["error"] = known.code or known.type
        if self._to_error is None:
            # The WSGI server takes it for the client's doing: it closes the connection at once, and in silence.
            raise ConnectionResetError(errno.ECONNRESET, known.message) from error
        return self._to_error(known)

    def close(self) -> None:
        """Called by the WSGI server on every path: after the last event, and when the client cannot be written to."""
        if not self._is_over:
            self._call.cancellation.cancel()
        try:
            self._source.close()
            self._call.note_usage(self._source.usage)
        finally:
            self._call.finish(self._status)


def stream_response(body: StreamBody, headers: Mapping[str, str] = HEADERS) -> Response:
    """`body` as a response that nobody on the way may hold back."""
    return Response(body, 200, dict(headers), direct_passthrough=True)
