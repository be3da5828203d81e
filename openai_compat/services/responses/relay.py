"""Relay of an upstream's Responses stream, which is watched for broken events and for its end."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, Final

from openai_compat.backends.base import SupportsForwarding
from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.backends.parsing.answer_format import CARRIES_CONTENT
from openai_compat.backends.parsing.json_check import (
    SLICE_BYTES,
    STRING,
    check_large_object,
    has_non_finite,
    is_utf8,
    parse_repaired,
)
from openai_compat.backends.parsing.openai_chat import END_OF_STREAM, read_usage
from openai_compat.core.errors import UpstreamError, UpstreamInvalidResponseError, UpstreamTruncatedError
from openai_compat.core.large_json import LARGE_BYTES
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import JSON, Usage
from openai_compat.services.answer_check import find_usage
from openai_compat.services.event_relay import EventJoiner, PrimedRelay
from openai_compat.services.forwarding import to_stream_error
from openai_compat.services.sse_events import DATA, replace_data, split_events

from .lifecycle import Lifecycle

log = logging.getLogger(__name__)

ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
STARTS: Final = frozenset({"response.created", "response.in_progress"})
"""Events before which nothing was decided, so that a failure after them can still have its status."""
RESPONSE: Final = "response."
PARTS: Final = (".added", ".delta", ".done")
"""Ends of the types of events that carry parts of the response."""
ERROR: Final = "error"
FAILURES: Final = frozenset({ERROR, "response.failed"})
"""Events with the upstream's words, which may repeat this server's credentials."""
_NAME: Final = re.compile(rb"(?:^|[\r\n])event: ?([\w.]+)")
_PAIR: Final = STRING + rb" ?: ?(?:" + STRING + rb"|-?(?:0|[1-9]\d*+)|null|true|false|\[\])"
_FLAT_DELTA: Final = re.compile(
    rb"event: ?[\w.]++(?<=\.delta)\r?\ndata: ?\{" + _PAIR + rb"(?:, ?" + _PAIR + rb")*+\}\r?\n\r?\n"
)
"""A complete delta without nested values, as nearly all are. It needs no parser to be known as valid."""
_TYPE: Final = re.compile(rb'"type" ?: ?"([\w.]+)"')
_NUMBER: Final = re.compile(rb'"sequence_number" ?: ?(\d+)')


class ResponsesRelay(PrimedRelay):
    """The events of an upstream, as bytes.

    The stream ends with the event that ends the response, and what follows it is dropped. A broken event without
    content is dropped. `NaN` becomes `LOWEST_LOGPROB`.

    Raises (while iterating):
        UpstreamTruncatedError: it ended before that event.
        UpstreamInvalidResponseError: an event of the response was broken. Any error of reading the response.
    """

    def __init__(
        self,
        response: UpstreamResponse,
        backend: SupportsForwarding,
        lifecycle: Lifecycle,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.headers = headers
        self._response = response
        self._blocks = response.blocks()
        self._backend = backend
        self._lifecycle = lifecycle
        self._joiner = EventJoiner()
        self._created: JSON | None = None
        self._last = b""
        self._broken: UpstreamError | None = None
        self._usage: Usage | None = None
        self._is_done = False

    @property
    def usage(self) -> Usage | None:
        return self._usage

    def __next__(self) -> bytes | Heartbeat:
        while not self._is_done:
            try:
                if self._broken is not None:
                    raise self._broken
                block = next(self._blocks, None)
                if block is HEARTBEAT:
                    self._adopt(-1)
                    return block
                kept = self._end() if block is None else self._watch(self._joiner.feed(block))
            except Exception:
                self._adopt(0)
                raise
            if kept:
                if kept.find(b'"sequence_number"') >= 0:
                    self._last = kept
                return kept
        raise StopIteration

    def close(self) -> None:
        if self._is_done:
            self._response.release()
        else:
            self._response.close()

    def _end(self) -> bytes:
        """Return the last event, which may lack its end mark. If it does not end the response, an error follows.

        Raises:
            UpstreamError: there is none.
        """
        rest = self._joiner.rest()
        kept = self._watch(rest + b"\n\n") if rest and _data_of(rest) else b""
        if not self._is_done:
            self._broken = self.failure or UpstreamTruncatedError(
                "The upstream's stream ended before its response was complete."
            )
            if not kept:
                raise self._broken
        return kept

    def _watch(self, events: bytes) -> bytes:
        """Return what the client gets of `events`, up to the one that ends the response, or up to a broken one.

        Raises:
            UpstreamError: the failure came before any content.
        """
        kept: list[bytes] = []
        for event in split_events(events):
            try:
                kept.append(self._inspect(event))
            except UpstreamError as error:
                if not self._has_content:
                    raise
                self._broken = error
            if self._is_done or self._broken is not None:
                break
        return b"".join(kept)

    def _inspect(self, event: bytes) -> bytes:
        """Return what the client gets of one event."""
        if len(event) <= LARGE_BYTES and _FLAT_DELTA.fullmatch(event) is not None and is_utf8(event):
            self._has_content = True
            return event
        data = _data_of(event)
        type_ = _type_of(event, data or {})
        if type_ in FAILURES:
            self._fail(type_, data)
            return self._response.redact(event)
        if data is None or _is_empty(type_, data, event):
            return self._drop(type_, event)
        self._observe(type_, data, event)
        return replace_data(event, data) if data and has_non_finite(event) else event

    def _drop(self, type_: str, event: bytes) -> bytes:
        """Drop a broken event.

        Raises:
            UpstreamInvalidResponseError: it belongs to the response, which would be altered without it.
        """
        if type_.startswith(RESPONSE) or CARRIES_CONTENT.search(event) is not None:
            raise UpstreamInvalidResponseError("The upstream sent a broken event that belongs to its response.")
        log.warning("dropped a broken event of the upstream: %.100r", self._response.redact(event))
        return b""

    def _observe(self, type_: str, data: JSON, event: bytes) -> None:
        """Note what an event says that is no failure.

        Raises:
            UpstreamError: it is a good end after an error.
        """
        response = data.get("response")
        if type_ in STARTS:
            if self._created is None and isinstance(response, dict):
                self._created = response
            return
        if type_ in ENDS:
            if self.failure is not None:
                raise self.failure
            self._is_done = True
            self._usage = read_usage(response.get("usage")) if isinstance(response, dict) else find_usage(event)
        self._has_content = self._has_content or bool(type_)

    def _fail(self, type_: str, data: JSON | None) -> None:
        """Handle an error, which is raised if nothing else has been sent or it is broken, and passed on otherwise.

        Raises:
            UpstreamError
        """
        response = (data or {}).get("response")
        failure = response.get("error") if isinstance(response, dict) else None
        error = failure if type_ != ERROR else (data or {}).get("error", data)
        chunk = {"error": error or {"message": "The response failed."}}
        self.failure = to_stream_error(self._backend, self._response, chunk)
        if not self._has_content or data is None:
            raise self.failure
        self._is_done = type_ != ERROR

    def _adopt(self, offset: int) -> None:
        """Let this server continue the stream. With an offset of -1 a keep-alive repeats the last number."""
        if self._has_content:
            numbers = _NUMBER.findall(self._last)
            self._lifecycle.adopt(
                self._created or self._lifecycle.response, int(numbers[-1]) + offset if numbers else offset
            )


def _type_of(event: bytes, data: Mapping[str, Any]) -> str:
    """Return the event's type, empty if it has none."""
    if (found := _NAME.search(event)) is not None:
        return found[1].decode()
    if isinstance(type_ := data.get("type"), str):
        return type_
    found = _TYPE.search(event)  # it is broken, or too large to be parsed
    return found[1].decode() if found is not None else ""


def _is_empty(type_: str, data: JSON, event: bytes) -> bool:
    """Return True if an event of the response has nothing of it."""
    if len(event) > SLICE_BYTES:
        return False
    if type_ in ENDS:
        return not isinstance(data.get("response"), dict)
    return not data and type_.startswith(RESPONSE) and type_.endswith(PARTS)


def _data_of(event: bytes) -> JSON | None:
    """Return the event's JSON object, empty if it has no data or is too large to be parsed, or None if it is broken."""
    text = b"\n".join(DATA.findall(event)).strip()
    if not text or text == END_OF_STREAM.encode():
        return {}
    try:
        if len(text) > SLICE_BYTES and not has_non_finite(text):
            check_large_object(text)
            return {}
        value = parse_repaired(text)
    except (ValueError, RecursionError, UpstreamInvalidResponseError):
        return None
    return value if isinstance(value, dict) else None
