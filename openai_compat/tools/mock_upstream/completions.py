"""Text completions in OpenAI's format, as one object or as the chunks of a stream."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from .errors import ApiError, Json, missing_parameter
from .options import Options
from .replies import (
    CREATED,
    FINGERPRINT,
    count_choices,
    count_tokens,
    digest,
    reply_texts,
    truncate,
    usage_of,
    with_usage,
)

Choices = list[tuple[list[str], str]]  # the texts and the finish reason of each choice


def completion_objects(payload: Json, model: str, options: Options) -> tuple[tuple[Json, ...], Json]:
    """Return the object of the answer, or the chunks if a stream is requested, and the usage.

    Raises:
        ApiError: the request is invalid.
    """
    prompts = texts_of(payload, "prompt")
    count = count_choices(payload)
    limit = 16 if payload.get("max_tokens") is None else payload["max_tokens"]
    replies = [truncate(reply_texts(prompt, i, options), limit) for prompt in prompts for i in range(count)]
    usage = usage_of(sum(map(count_tokens, prompts)), sum(len(texts) for texts, _ in replies))
    common = {"id": f"cmpl-{digest(prompts)[:29]}", "object": "text_completion", "created": CREATED}
    if payload.get("stream"):
        return with_usage(list(_chunks(common, model, replies)), payload, usage), usage
    choices = [_choice(index, "".join(texts), finish_reason) for index, (texts, finish_reason) in enumerate(replies)]
    ending = {"usage": usage, "system_fingerprint": FINGERPRINT}
    return ({**common, "model": model, "choices": choices, **ending},), usage


def texts_of(payload: Json, name: str) -> list[str]:
    """Return the texts of a parameter that is a string, token ids, or a list of either.

    Raises:
        ApiError: the parameter is missing or invalid.
    """
    value: Any = payload.get(name)
    if value is None:
        raise missing_parameter(name)
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int)):
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(item, (str, list)) for item in value):
        raise ApiError(400, f"'$.{name}' is invalid.", param=name)
    return [item if isinstance(item, str) else " ".join(map(str, item)) for item in value]


def _choice(index: int, text: str, finish_reason: str | None = None) -> Json:
    """Return a choice of a complete answer or of a chunk, which have the same format."""
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish_reason}


def _chunks(common: Json, model: str, replies: Choices) -> Iterator[Json]:
    """Yield the chunks of a stream, the texts of the choices in turn, then all finish reasons."""
    ending = {"model": model, "system_fingerprint": FINGERPRINT}
    for deltas in zip_longest(*(texts for texts, _ in replies)):
        yield from ({**common, "choices": [_choice(i, text)], **ending} for i, text in enumerate(deltas) if text)
    for index, (_, finish_reason) in enumerate(replies):
        yield {**common, "choices": [_choice(index, "", finish_reason)], **ending}
