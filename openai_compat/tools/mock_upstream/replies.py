"""Texts, ids, token counts and usage of chat and text completions.

The same request always gets the same answer. Ids are hashes of the prompt, and `created` is constant.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

from .errors import ApiError, Json
from .options import Options

CREATED = 1_700_000_000
FINGERPRINT = "fp_mock000001"
_WORD = re.compile(r"\s*\S+|\s+$")


def reply_texts(prompt: str, index: int, options: Options) -> list[str]:
    """Return the texts of the deltas of choice `index`. The text of each choice is different."""
    number = f" (choice {index + 1})" if index else ""
    text = f"{options.prefix}You said: {prompt}{number}{options.suffix}"
    size = options.size
    if options.chunks:
        size = size or 5
        length = options.chunks * size
        text = (f"{text} " * (length // (len(text) + 1) + 1))[:length]
    return [text[start : start + size] for start in range(0, len(text), size)] if size else _WORD.findall(text)


def truncate(texts: Sequence[str], limit: object) -> tuple[list[str], str]:
    """Return the texts that `max_tokens` allows, and the finish reason."""
    if isinstance(limit, int) and 0 <= limit < len(texts):
        return list(texts[:limit]), "length"
    return list(texts), "stop"


def count_tokens(text: str) -> int:
    """Return the number of words, which the mock counts as tokens."""
    return len(_WORD.findall(text))


def digest(*values: object) -> str:
    """Return a hash of the values, long enough for any id."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def usage_of(prompt_tokens: int, completion_tokens: int) -> Json:
    """Return a usage object with OpenAI's keys."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def with_usage(chunks: Sequence[Json], payload: Json, usage: Json) -> tuple[Json, ...]:
    """Return the chunks of a stream, with usage if `stream_options.include_usage` is true.

    Raises:
        ApiError: `stream_options` is not an object.
    """
    stream_options = payload.get("stream_options") or {}
    if not isinstance(stream_options, dict):
        message = "Invalid type for 'stream_options': expected an object."
        raise ApiError(400, message, param="stream_options", code="invalid_type")
    if not stream_options.get("include_usage"):
        return tuple(chunks)
    without_usage = [{**chunk, "usage": None} for chunk in chunks]
    return (*without_usage, {**chunks[-1], "choices": [], "usage": usage})


def count_choices(payload: Json) -> int:
    """Return `n`, 1 if it is absent.

    Raises:
        ApiError: it is not an integer from 1 to 128.
    """
    number = payload.get("n")
    if number is None:
        return 1
    if not isinstance(number, int) or not 1 <= number <= 128:
        message = f"Invalid 'n': expected an integer from 1 to 128, but got {number!r} instead."
        raise ApiError(400, message, param="n", code="invalid_value")
    return number
