"""Repair of tool calls in relayed streams, whose wrong indexes and finish reasons end or confuse agents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openai_compat.backends.parsing.tool_calls import ToolCallParser

from .event_stream import JSON
from .sse_events import choices_of


class ToolCallRepair:
    """Repairs the tool calls of one stream.

    It adds missing indexes, drops repeated ids and names, and corrects the finish reason `stop` after tool calls.
    """

    __slots__ = ("_parsers", "is_exact")

    def __init__(self) -> None:
        self._parsers: dict[int, ToolCallParser] = {}
        self.is_exact = True
        """True while each delta was as OpenAI sends it."""

    def repair(self, chunk: JSON) -> JSON:
        """Return the chunk as OpenAI would send it, the same object if nothing changes."""
        choices = chunk.get("choices")
        if not isinstance(choices, list) or len(choices_of(chunk)) < len(choices):
            return chunk
        repaired = [self._repair_choice(choice) for choice in choices]
        is_changed = any(new is not old for new, old in zip(repaired, choices, strict=True))
        return {**chunk, "choices": repaired} if is_changed else chunk

    def _repair_choice(self, choice: Mapping[str, Any]) -> Mapping[str, Any]:
        index = choice["index"] if isinstance(choice.get("index"), int) else 0
        delta = choice.get("delta")
        calls = delta.get("tool_calls") if isinstance(delta, dict) else None
        if isinstance(calls, list) and calls and all(isinstance(call, dict) for call in calls):
            parser = self._parsers.setdefault(index, ToolCallParser())
            repaired = [parser.repair(call) for call in calls]
            if any(new is not old for new, old in zip(repaired, calls, strict=True)):
                self.is_exact = False
                choice = {**choice, "delta": {**delta, "tool_calls": repaired}}  # type: ignore[dict-item]
        if choice.get("finish_reason") == "stop" and index in self._parsers:
            choice = {**choice, "finish_reason": "tool_calls"}
        return choice
