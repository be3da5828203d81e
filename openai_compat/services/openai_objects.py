"""Token usage as OpenAI writes it, and counted here where a backend counts none."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from openai_compat.core.tokens import TokenCounter
from openai_compat.core.types import Usage

from .parameters import Text


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


def count_texts(texts: Sequence[Text], model: str, tokens: TokenCounter) -> int:
    """The tokens of prompts or inputs; token ids count as what they are."""
    ids = sum(len(text) for text in texts if not isinstance(text, str))
    return ids + tokens.count_all([text for text in texts if isinstance(text, str)], model)


def new_id(prefix: str) -> str:
    """`chatcmpl-` and the like, followed by 32 random characters."""
    return prefix + uuid4().hex


def now() -> int:
    """Unix time in whole seconds, as `created` wants it."""
    return int(time.time())
