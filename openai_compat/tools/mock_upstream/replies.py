"""What chat and text completions share: the text of a reply in pieces, ids, token counts, and usage in a stream.

The same question always gets the same answer: ids are a hash of the question, and `created` never changes.
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


def split_reply(question: str, index: int, options: Options) -> list[str]:
    """Return the pieces of the reply to `question`: that of choice `index`, so that choices can be told apart."""
    numbered = f" (choice {index + 1})" if index else ""
    text = f"{options.prefix}You said: {question}{numbered}{options.suffix}"
    size = options.size
    if options.chunks:
        size = size or 5
        length = options.chunks * size
        text = (f"{text} " * (length // (len(text) + 1) + 1))[:length]
    return [text[start : start + size] for start in range(0, len(text), size)] if size else _WORD.findall(text)


def cut_to_limit(pieces: Sequence[str], limit: object) -> tuple[list[str], str]:
    """Return the pieces that `max_tokens` allows, and the reason to finish there."""
    if isinstance(limit, int) and 0 <= limit < len(pieces):
        return list(pieces[:limit]), "length"
    return list(pieces), "stop"


def count_tokens(text: str) -> int:
    """Return how many tokens the mock takes `text` for: its words."""
    return len(_WORD.findall(text))


def digest_of(*question: object) -> str:
    """Return a hash of the question, long enough for any id."""
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()


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
    """Return the chunks of a stream as `stream_options.include_usage` wants them."""
    stream_options = payload.get("stream_options") or {}
    if not isinstance(stream_options, dict):
        message = "Invalid type for 'stream_options': expected an object."
        raise ApiError(400, message, param="stream_options", code="invalid_type")
    if not stream_options.get("include_usage"):
        return tuple(chunks)
    silent = [{**chunk, "usage": None} for chunk in chunks]
    return (*silent, {**chunks[-1], "choices": [], "usage": usage})


def count_choices(payload: Json) -> int:
    """Return `n`, or raise `ApiError` if it is no number of choices."""
    number = payload.get("n")
    if number is None:
        return 1
    if not isinstance(number, int) or not 1 <= number <= 128:
        message = f"Invalid 'n': expected an integer from 1 to 128, but got {number!r} instead."
        raise ApiError(400, message, param="n", code="invalid_value")
    return number
