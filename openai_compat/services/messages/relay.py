"""Relay of an upstream's stream of Messages events, which is watched for its end."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, Final

from openai_compat.backends.base import SupportsMessages
from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.backends.parsing.answer_format import CARRIES_CONTENT
from openai_compat.backends.parsing.anthropic_errors import to_inner_error
from openai_compat.backends.parsing.anthropic_messages import UsageReader
from openai_compat.backends.parsing.json_check import parse_repaired
from openai_compat.backends.parsing.openai_chat import DONE_GRACE, END_OF_STREAM
from openai_compat.backends.parsing.openai_errors import find_status, to_error_chunk
from openai_compat.core.anthropic import error_type_of
from openai_compat.core.errors import UpstreamInvalidResponseError, UpstreamTimeoutError, UpstreamTruncatedError
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import Usage
from openai_compat.services.event_relay import EventJoiner, PrimedRelay
from openai_compat.services.event_template import EventTemplate
from openai_compat.services.sse_events import DATA, split_events

from .events import to_event

log = logging.getLogger(__name__)

START: Final = "message_start"
PING: Final = "ping"
DELTA: Final = "content_block_delta"
BLOCK_START: Final = "content_block_start"
BLOCK_STOP: Final = "content_block_stop"
ENDING: Final = "message_delta"
STOP: Final = "message_stop"
ERROR: Final = "error"
REQUIRED: Final = frozenset({START, BLOCK_START, DELTA, BLOCK_STOP})
"""Types of events that carry parts of the message. A broken one cannot be dropped."""
STOP_EVENT: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_FIELD: Final = b"event:"
_NAME: Final = re.compile(rb"(?:^|[\r\n])event: ?(\w+)")


class MessagesRelay(PrimedRelay):
    """The events of an upstream, as bytes.

    The stream ends with `message_stop`, which is added if only that is missing, or with an error. A broken event
    without content is dropped. An event is parsed unless it differs from another one of its block in its text alone.

    Raises (while iterating):
        UpstreamTruncatedError: it ended before the reason for the end was known.
        UpstreamInvalidResponseError: an event with content was broken. Any error of reading the response.
    """

    def __init__(self, response: UpstreamResponse, backend: SupportsMessages, headers: Mapping[str, str]) -> None:
        super().__init__()
        self.headers = headers
        self._response = response
        self._blocks = response.blocks()
        self._backend = backend
        self._joiner = EventJoiner()
        self._template = EventTemplate()
        self._usage = UsageReader()
        self._is_finished = self._is_done = False

    @property
    def usage(self) -> Usage | None:
        return self._usage.to_usage()

    def __next__(self) -> bytes | Heartbeat:
        while not self._is_done:
            block = self._next_block()
            if block is None:
                return self._end()
            if block is HEARTBEAT:
                return block
            if (events := self._joiner.feed(block)) and (kept := self._watch(events)):
                return kept
        raise StopIteration

    def close(self) -> None:
        if self._is_done and self.failure is None:
            self._response.release()
        else:
            self._response.close()

    def _next_block(self) -> bytes | Heartbeat | None:
        """Return the next block, or None at the end. Of a finished message, the end may be missing."""
        try:
            return next(self._blocks, None)
        except (UpstreamTimeoutError, UpstreamTruncatedError):
            if not self._is_finished:
                raise
            return None

    def _end(self) -> bytes:
        """Return the end mark, which was missing.

        Raises:
            UpstreamTruncatedError: more than that is missing.
        """
        if not self._is_finished:
            raise UpstreamTruncatedError("The upstream's stream ended before its message was complete.")
        self._is_done = True
        return STOP_EVENT

    def _watch(self, events: bytes) -> bytes:
        """Return what the client gets of `events`, up to the one that ends the message."""
        if (same := self._template.match(events)) is not None:
            return same
        kept: list[bytes] = []
        for event in split_events(events):
            same = self._template.match(event)
            kept.append(self._inspect(event) if same is None else same)
            if self._is_done:
                break
        return b"".join(kept)

    def _inspect(self, event: bytes) -> bytes:
        """Return what the client gets of one event."""
        data = _data_of(event)
        type_ = _type_of(event, data or {})
        if type_ == ERROR:
            event = self._response.redact(event)
        elif data is None or (type_ in REQUIRED and not data):
            return self._drop(type_, event)
        kept = event if _NAME.search(event) is not None else _with_name(event, type_)
        if type_ == DELTA:
            self._has_content = True
            self._template.train(event, kept)
        else:
            self._observe(type_, data or {}, event)
        return kept

    def _drop(self, type_: str, event: bytes) -> bytes:
        """Drop a broken event.

        Raises:
            UpstreamInvalidResponseError: the message would be altered without it.
        """
        if type_ in REQUIRED or CARRIES_CONTENT.search(event) is not None:
            raise UpstreamInvalidResponseError("The upstream sent a broken event that carried content.")
        log.warning("dropped a broken event of the upstream: %.100r", self._response.redact(event))
        return b""

    def _observe(self, type_: str, data: Mapping[str, Any], event: bytes) -> None:
        """Note what an event other than a delta says.

        Raises:
            UpstreamError: it is an error, and nothing else has been sent.
        """
        if type_ == START:
            message = data.get("message")
            self._usage.read(message.get("usage") if isinstance(message, dict) else None)
        elif type_ == BLOCK_START:
            self._template = EventTemplate()  # the deltas of another block differ in its number
        elif type_ == ENDING:
            self._read_ending(data)
        elif type_ == STOP:
            if not self._is_finished:
                raise UpstreamTruncatedError("The upstream's message ended without a reason.")
            self._is_done = True
        elif type_ == ERROR:
            self._fail(event)
        elif type_ not in ("", PING):
            self._has_content = True

    def _read_ending(self, data: Mapping[str, Any]) -> None:
        self._usage.read(data.get("usage"))
        delta = data.get("delta")
        if isinstance(delta, dict) and delta.get("stop_reason"):
            self._has_content = self._is_finished = True
            self._response.limit_remaining(DONE_GRACE)

    def _fail(self, event: bytes) -> None:
        """Handle an error, which is raised if nothing else has been sent, and passed on otherwise.

        Raises:
            UpstreamError
        """
        value = to_error_chunk(b"\n".join(DATA.findall(event)).decode("utf-8", "replace"))
        self.failure = self._backend.to_refusal(find_status(value)) or to_inner_error(value, self._response)
        if not self._has_content:
            raise self.failure
        self._is_done = True


def _with_name(event: bytes, type_: str) -> bytes:
    """Return an event with the name that it lacks, without which both official clients skip it.

    An error in OpenAI's form becomes one in Anthropic's.
    """
    data = _data_of(event) or {}
    if type_ == ERROR and data.get("type") != ERROR:
        error = data["error"]
        message = (error.get("message") if isinstance(error, dict) else error) or "The upstream failed."
        return to_event(ERROR, {"error": {"type": error_type_of(500), "message": str(message)}})
    return b"event: %b\n%b" % (type_.encode(), event.lstrip(b"\r\n")) if type_ else event


def _type_of(event: bytes, data: Mapping[str, Any]) -> str:
    """Return the event's type, empty if it has none. Clients skip events without a name, and take the last of several.

    Most events begin with their only name.
    """
    found = _NAME.search(event)
    if found is not None and event.count(_FIELD) > 1:
        *_, found = _NAME.finditer(event)
    if found is not None:
        return found[1].decode()
    type_ = data.get("type")
    return ERROR if data.get("error") else type_ if isinstance(type_, str) else ""


def _data_of(event: bytes) -> dict[str, Any] | None:
    """Return the event's JSON object, empty if the event has no data, or None if it is broken."""
    text = b"\n".join(DATA.findall(event)).strip()
    if not text or text == END_OF_STREAM.encode():
        return {}
    try:
        value = parse_repaired(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
