"""Replacement of the finish reason `""` in relayed streams, which no client of OpenAI's protocol knows."""

from __future__ import annotations

from collections.abc import Mapping

from .event_stream import JSON
from .sse_events import choices_of


class EmptyFinishReasons:
    """Replacement of the empty finish reasons in one stream.

    Some servers send `""` with every chunk, others in place of the last one's `stop` (source: GenieX#1243).
    """

    __slots__ = ("_choices", "_chunk")

    def __init__(self) -> None:
        self._chunk: JSON = {}
        self._choices: dict[int, JSON] = {}

    def replace(self, chunk: JSON) -> JSON:
        """Return the chunk with null in place of empty finish reasons."""
        self._chunk = chunk
        self._choices |= {
            choice.get("index") or 0: choice for choice in choices_of(chunk) if choice.get("finish_reason") == ""
        }
        return {**chunk, "choices": [_without_empty(choice) for choice in choices_of(chunk)]}

    def to_end(self, finished: set[int]) -> JSON | None:
        """Return the chunk that ends the choices which are not in `finished`, or None if all are."""
        missing = [
            {**choice, "delta": {}, "finish_reason": "stop"}
            for index, choice in self._choices.items()
            if index not in finished
        ]
        return {**self._chunk, "choices": missing} if missing else None


def _without_empty(choice: Mapping[str, object]) -> Mapping[str, object]:
    return {**choice, "finish_reason": None} if choice.get("finish_reason") == "" else choice
