"""Token usage as OpenAI writes it, and counted here where a backend counts none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..domain import Usage


def to_usage_object(usage: Usage) -> dict[str, Any]:
    """The `usage` of chat and text completions, with its detail objects."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def without_nulls(payload: Mapping[str, Any], *left_out: str) -> dict[str, Any]:
    """The parameters of a payload: what was given a value, but for the fields that have a place of their own."""
    return {name: value for name, value in payload.items() if value is not None and name not in left_out}
