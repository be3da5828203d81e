"""Readers of Anthropic's answers, complete ones and streams of events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator

from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.core.errors import (
    UpstreamError,
    UpstreamInvalidResponseError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
)
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import ChatDelta, JSONObject

from .answer_format import CARRIES_CONTENT
from .anthropic_messages import MessageParser
from .json_check import parse_repaired
from .openai_chat import DONE_GRACE, END_OF_STREAM, parse_object
from .openai_errors import is_error, to_error_chunk
from .sse import ERROR_EVENT, SSEEvent, iterate_events, primed

log = logging.getLogger(__name__)

PING = "ping"
END = "message_stop"
ToInnerError = Callable[[JSONObject], UpstreamError]
"""Builds the exception for an error object in an answer of status 200."""


def read_message(body: bytes, to_error: ToInnerError) -> list[ChatDelta]:
    """Parse a complete message into deltas.

    Raises:
        UpstreamInvalidResponseError: The body is no message.
        UpstreamError: The body is an error object.
    """
    message = parse_object(body)
    if message.get("type") == ERROR_EVENT or is_error(message):
        raise to_error(message)
    return list(MessageParser().read_message(message))


@primed
def read_message_stream(
    response: UpstreamResponse, to_error: ToInnerError, *, heartbeats: bool
) -> Generator[ChatDelta | Heartbeat, None, None]:
    """Yield the deltas of a streamed message up to `message_stop`. Close the response on every path.

    With `heartbeats` a `ping` becomes a `HEARTBEAT`, because the upstream sends it when it has nothing else to send.

    Raises:
        UpstreamTruncatedError: The stream ended before the reason for the end was known.
        UpstreamInvalidResponseError: An event cannot be read, or the stream has no content.
        UpstreamError: The stream contains an error.
    """
    parser = MessageParser()
    try:
        yield HEARTBEAT
        for event in iterate_events(_blocks_until_finished(response, parser)):
            if event is HEARTBEAT:
                yield event
                continue
            value = _read_event(event, parser, to_error)
            if value is None:
                continue
            if value.get("type") == END:
                response.release()
                break
            if heartbeats and value.get("type") == PING:
                yield HEARTBEAT
            yield from parser.read(value)
            if parser.is_finished:
                response.limit_remaining(DONE_GRACE)
        yield _read_end(parser)
    finally:
        response.close()


def _blocks_until_finished(response: UpstreamResponse, parser: MessageParser) -> Iterator[bytes | Heartbeat]:
    """Yield the response's blocks. Ignore a missing end once the reason for the end is known."""
    try:
        yield from response.blocks()
    except (UpstreamTimeoutError, UpstreamTruncatedError):
        if not parser.is_finished:
            raise


def _read_end(parser: MessageParser) -> ChatDelta:
    if not parser.is_finished:
        raise UpstreamTruncatedError("The upstream's stream ended before the answer was complete.")
    return parser.read_end()


def _read_event(event: str | SSEEvent, parser: MessageParser, to_error: ToInnerError) -> JSONObject | None:
    """Return the event's object, or None for an event without content.

    Raises:
        UpstreamError: It is an error. UpstreamTruncatedError, UpstreamInvalidResponseError: It is broken.
    """
    name, data, strays, is_cut = event if isinstance(event, SSEEvent) else ("", event, "", False)
    if name == ERROR_EVENT:
        raise to_error(to_error_chunk(data))
    value = _parse(data)
    if value is not None:
        if value.get("type") == ERROR_EVENT or is_error(value):
            raise to_error(value)
        return value
    if (text := (data + strays).strip()) and text != END_OF_STREAM:
        _skip(text, parser, to_error, is_cut=is_cut)
    return None


def _skip(text: str, parser: MessageParser, to_error: ToInnerError, *, is_cut: bool) -> None:
    """Skip a broken event, unless it is an error or the answer would be altered without it."""
    value = _parse(text)
    if value is not None and is_error(value):
        raise to_error(value)
    if is_cut and not parser.is_finished:
        raise UpstreamTruncatedError("The upstream's stream broke off in the middle of an event.")
    if CARRIES_CONTENT.search(text.encode("utf-8", "surrogatepass")) is not None:
        raise UpstreamInvalidResponseError("The upstream sent a broken event that carried content.")
    log.warning("skipped a broken event of the upstream: %.100r", text)


def _parse(text: str) -> JSONObject | None:
    try:
        value = parse_repaired(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
