"""Relay of an upstream's Responses stream, which is watched for its end."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from openai_compat.backends.base import SupportsForwarding
from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.backends.parsing.json_check import SLICE_BYTES
from openai_compat.backends.parsing.openai_chat import read_usage
from openai_compat.core.errors import UpstreamTruncatedError
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import JSON, Usage
from openai_compat.services.answer_check import find_usage
from openai_compat.services.event_relay import EventJoiner, PrimedRelay
from openai_compat.services.forwarding import to_stream_error
from openai_compat.services.sse_events import DATA, split_events

from .lifecycle import Lifecycle

ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
STARTS: Final = frozenset({"response.created", "response.in_progress"})
"""Events before which nothing was decided, so that a failure after them can still have its status."""
ERROR: Final = "error"
FAILURES: Final = frozenset({ERROR, "response.failed"})
"""Events with the upstream's words, which may repeat this server's credentials."""
_NAME: Final = re.compile(rb"(?:^|[\r\n])event: ?([\w.]+)")
_TYPE: Final = re.compile(rb'"type" ?: ?"([\w.]+)"')
_NUMBER: Final = re.compile(rb'"sequence_number" ?: ?(\d+)')


class ResponsesRelay(PrimedRelay):
    """The events of an upstream, as bytes.

    The stream ends with the event that ends the response, and what follows it is dropped.

    Raises (while iterating):
        UpstreamTruncatedError: it ended before that event. Any error of reading the response.
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
        self._usage: Usage | None = None
        self._is_done = False

    @property
    def usage(self) -> Usage | None:
        return self._usage

    def __next__(self) -> bytes | Heartbeat:
        while not self._is_done:
            try:
                block = next(self._blocks, None)
                if block is None:
                    raise self.failure or UpstreamTruncatedError(
                        "The upstream's stream ended before its response was complete."
                    )
            except Exception:
                self._adopt(0)
                raise
            if block is HEARTBEAT:
                self._adopt(-1)
                return block
            if events := self._joiner.feed(block):
                return self._watch(events)
        raise StopIteration

    def close(self) -> None:
        if self._is_done:
            self._response.release()
        else:
            self._response.close()

    def _watch(self, events: bytes) -> bytes:
        """Return the events up to the one that ends the response."""
        self._last = events
        kept: list[bytes] = []
        for event in split_events(events):
            type_ = _type_of(event)
            kept.append(self._response.redact(event) if type_ in FAILURES else event)
            if type_.endswith(".delta"):
                self._has_content = True
                continue
            self._observe(type_, event)
            if self._is_done:
                break
        return b"".join(kept)

    def _observe(self, type_: str, event: bytes) -> None:
        if type_ in FAILURES:
            self._fail(type_, event)
        elif type_ in STARTS:
            if self._created is None:
                response = _data_of(event).get("response")
                self._created = response if isinstance(response, dict) else None
            return
        elif type_ in ENDS:
            self._is_done = True
            response = _data_of(event).get("response")
            self._usage = read_usage(response.get("usage")) if isinstance(response, dict) else find_usage(event)
        self._has_content = self._has_content or bool(type_)

    def _fail(self, type_: str, event: bytes) -> None:
        """Handle an error, which is raised if nothing else has been sent, and passed on otherwise.

        Raises:
            UpstreamError
        """
        data = _data_of(event)
        response = data.get("response")
        failure = response.get("error") if isinstance(response, dict) else None
        error = failure if type_ != ERROR else data.get("error", data)
        chunk = {"error": error or {"message": "The response failed."}}
        self.failure = to_stream_error(self._backend, self._response, chunk)
        if not self._has_content:
            raise self.failure
        self._is_done = type_ != ERROR

    def _adopt(self, offset: int) -> None:
        """Let this server continue the stream. With an offset of -1 a keep-alive repeats the last number."""
        if self._has_content:
            numbers = _NUMBER.findall(self._last)
            self._lifecycle.adopt(
                self._created or self._lifecycle.response, int(numbers[-1]) + offset if numbers else offset
            )


def _type_of(event: bytes) -> str:
    """Return the event's type, empty if it has no data."""
    found = _NAME.search(event)
    if found is None:
        found = _TYPE.search(event)
        if found is not None and not found[1].endswith(b".delta"):  # the first type may be that of a nested object
            type_ = _data_of(event).get("type")
            return type_ if isinstance(type_, str) else found[1].decode()
    return found[1].decode() if found is not None else ""


def _data_of(event: bytes) -> dict[str, Any]:
    """Return the event's JSON object, empty if it has none or is too large to be parsed at once."""
    if len(event) > SLICE_BYTES:
        return {}
    try:
        value = json.loads(b"\n".join(DATA.findall(event)))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
