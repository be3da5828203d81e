"""Objects of the Messages API, such as the message and its usage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from openai_compat.core.anthropic import STOP_REASONS
from openai_compat.core.types import JSON, ChatDelta, FinishReason, Usage
from openai_compat.services.openai_objects import new_id

WITHOUT_CALLS: Final[frozenset[FinishReason]] = frozenset({"tool_calls", "function_call"})
"""Reasons that an answer without a tool call cannot have. Claude Code waits forever for such a call."""


def new_message(model: str, input_tokens: int) -> JSON:
    """Return a message that has begun, with an estimate of the prompt's tokens."""
    return {
        "id": new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": to_usage(Usage(input_tokens)),
    }


def to_usage(usage: Usage) -> JSON:
    """Return the usage. Its input tokens are those that were neither read from a cache nor written to one."""
    return {
        "input_tokens": max(0, usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


class Ending:
    """The end of an answer, read from its deltas. `stop_sequences` are those of the request."""

    def __init__(self, stop_sequences: Sequence[str]) -> None:
        self._stop_sequences = stop_sequences
        self._reason: FinishReason | None = None
        self._sequence: str | None = None
        self._refusals: list[str] = []

    def add(self, delta: ChatDelta) -> None:
        """Read a delta that may have a part of the end."""
        self._reason = delta.finish_reason or self._reason
        if delta.stop_sequence in self._stop_sequences:
            self._sequence = delta.stop_sequence
        if delta.refusal:
            self._refusals.append(delta.refusal)

    def to_fields(self, calls: Sequence[object]) -> JSON:
        """Return `stop_reason` and `stop_sequence`, and `stop_details` of a refusal."""
        reason = self._stop_reason(has_calls=bool(calls))
        fields: JSON = {"stop_reason": reason, "stop_sequence": self._sequence if reason == "stop_sequence" else None}
        if reason == "refusal":
            explanation = "".join(self._refusals) or None
            fields["stop_details"] = {"type": "refusal", "category": None, "explanation": explanation}
        return fields

    def _stop_reason(self, *, has_calls: bool) -> str:
        reason = self._reason or "stop"
        if self._refusals:
            return "refusal"
        if reason == "stop" and has_calls:
            return "tool_use"
        if reason in WITHOUT_CALLS and not has_calls:
            return "end_turn"
        if reason == "stop" and self._sequence is not None:
            return "stop_sequence"
        return STOP_REASONS[reason]
