"""The events about a response as a whole, and the numbers of all events of a stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from openai_compat.core.errors import OpenAICompatError
from openai_compat.core.types import JSON
from openai_compat.services.openai_objects import to_json

from .objects import to_failed

COMMENT: Final = b": keep-alive\n\n"


def to_json_text(value: Any) -> str:
    """Return `value` as JSON text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class Lifecycle:
    """The stream of one response, from its first event to its last.

    It belongs to the call, not to an attempt, because keep-alives may be sent before a model has answered. With
    `begins_early` they start the stream. Otherwise an upstream may start it, with the id that it gives the response,
    and keep-alives before that are comments.
    """

    def __init__(self, response: JSON, *, begins_early: bool) -> None:
        self.response = response
        self.has_begun = False
        self._begins_early = begins_early
        self._sequence = 0

    def next_number(self) -> int:
        """Return the number of the next event."""
        number = self._sequence
        self._sequence += 1
        return number

    def adopt(self, response: JSON, sequence: int) -> None:
        """Continue the stream of an upstream, whose last event had the number `sequence`."""
        self.response, self._sequence = response, sequence + 1
        self.has_begun = True

    def event(self, type_: str, fields: Mapping[str, Any]) -> bytes:
        """Return one event."""
        return self._encode(type_, to_json_text(fields)[1:-1])

    def begin(self) -> bytes:
        """Return the first two events, or nothing if they were sent already."""
        if self.has_begun:
            return b""
        self.has_begun = True
        response = self._response_text()
        return self._encode("response.created", response) + self._encode("response.in_progress", response)

    def queue(self) -> bytes:
        """Return the first two events of a background response."""
        self.has_begun = True
        self.response = {**self.response, "status": "queued", "background": True}
        response = self._response_text()
        return self._encode("response.created", response) + self._encode("response.queued", response)

    def proceed(self) -> bytes:
        """Return the event for a background response that is being worked on."""
        self.response = {**self.response, "status": "in_progress"}
        return self._encode("response.in_progress", self._response_text())

    def keep_alive(self) -> bytes:
        """Return what fills an idle gap. Clients that measure the time between two events ignore comments."""
        if not (self.has_begun or self._begins_early):
            return COMMENT
        return self.begin() or self._encode("response.in_progress", self._response_text())

    def end(self, status: str, body: bytes) -> bytes:
        """Return the last event of a response that is completed, incomplete or failed. `body` is its JSON."""
        return self._head(f"response.{status}").encode() + b'"response":' + body + b"}\n\n"

    def fail(self, error: OpenAICompatError) -> bytes:
        """Return the events for a failure. Some clients raise the error, and others only see the failed response."""
        begin = self.begin()
        report = self.event("error", error.to_envelope())
        failed = to_failed(self.response, error)
        return begin + report + self.end(failed["status"], to_json(failed))

    def _response_text(self) -> str:
        return f'"response":{to_json_text(self.response)}'

    def _encode(self, type_: str, fields: str) -> bytes:
        return f"{self._head(type_)}{fields}}}\n\n".encode("utf-8", "replace")

    def _head(self, type_: str) -> str:
        return f'event: {type_}\ndata: {{"type":"{type_}","sequence_number":{self.next_number()},'
