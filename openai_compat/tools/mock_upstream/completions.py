"""Text completions as OpenAI sends them: the whole object, and the chunks of a stream."""

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
    cut_to_limit,
    digest_of,
    split_reply,
    usage_of,
    with_usage,
)

Texts = list[tuple[list[str], str]]  # for each choice its pieces and its reason to finish


def completion_objects(payload: Json, model: str, options: Options) -> tuple[tuple[Json, ...], Json]:
    """Return the objects of the answer, chunks where a stream is asked for, and their usage."""
    prompts = texts_of(payload, "prompt")
    number = count_choices(payload)
    limit = 16 if payload.get("max_tokens") is None else payload["max_tokens"]
    texts = [cut_to_limit(split_reply(prompt, i, options), limit) for prompt in prompts for i in range(number)]
    usage = usage_of(sum(map(count_tokens, prompts)), sum(len(pieces) for pieces, _ in texts))
    head = {"id": f"cmpl-{digest_of(prompts)[:29]}", "object": "text_completion", "created": CREATED}
    if payload.get("stream"):
        return with_usage(list(_chunks(head, model, texts)), payload, usage), usage
    choices = [_choice(index, "".join(pieces), finish_reason) for index, (pieces, finish_reason) in enumerate(texts)]
    tail = {"usage": usage, "system_fingerprint": FINGERPRINT}
    return ({**head, "model": model, "choices": choices, **tail},), usage


def texts_of(payload: Json, name: str) -> list[str]:
    """Return the texts of a parameter that is a string, strings, token ids, or lists of them."""
    value: Any = payload.get(name)
    if value is None:
        raise missing_parameter(name)
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int)):
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(item, (str, list)) for item in value):
        raise ApiError(400, f"'$.{name}' is invalid.", param=name)
    return [item if isinstance(item, str) else " ".join(map(str, item)) for item in value]


def _choice(index: int, text: str, finish_reason: str | None = None) -> Json:
    """Return a choice, of a whole answer or of a chunk: they look the same."""
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish_reason}


def _chunks(head: Json, model: str, texts: Texts) -> Iterator[Json]:
    """Yield the chunks of a stream: the choices' pieces in turn, then all reasons to finish."""
    tail = {"model": model, "system_fingerprint": FINGERPRINT}
    for row in zip_longest(*(pieces for pieces, _ in texts)):
        yield from ({**head, "choices": [_choice(i, piece)], **tail} for i, piece in enumerate(row) if piece)
    for index, (_, finish_reason) in enumerate(texts):
        yield {**head, "choices": [_choice(index, "", finish_reason)], **tail}
