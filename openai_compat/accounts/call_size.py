"""The most tokens that a call may use, estimated before it is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

CHARS_PER_TOKEN: Final = 4
SMALL_BYTES: Final = 16_384
"""Bodies up to this length are counted by their bytes, which counts a little too much."""
MEDIA_TOKENS: Final = 1500
"""Tokens of an image or a file, whose length says little about them."""
BASE64: Final = "base64"
"""Type of the source of an image or a file in Anthropic's form."""
WITHOUT_OUTPUT: Final = frozenset({"embeddings", "messages/count_tokens", "responses/input_tokens"})
"""Paths of calls after which no model writes anything."""
OUTPUT_LIMITS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")


class AnyCall(Protocol):
    """An inference call."""

    @property
    def path(self) -> str: ...
    @property
    def body(self) -> bytes: ...
    @property
    def payload(self) -> Mapping[str, Any]: ...
    @property
    def choices(self) -> int: ...


def input_tokens_of(body: bytes, payload: Mapping[str, Any]) -> int:
    """Return an estimate of the input tokens, rather too high than too low for text in Latin letters."""
    if 0 < len(body) <= SMALL_BYTES and b'"data:' not in body:
        return -(-len(body) // CHARS_PER_TOKEN)
    return _tokens_of(payload)


def _tokens_of(value: Any) -> int:
    if isinstance(value, str):
        return MEDIA_TOKENS if value.startswith("data:") else -(-len(value) // CHARS_PER_TOKEN)
    if isinstance(value, Mapping):
        if value.get("type") == BASE64:
            return MEDIA_TOKENS
        return sum(map(_tokens_of, value.values()))
    if isinstance(value, list | tuple):
        if value and isinstance(value[0], int):
            return len(value)  # token ids
        return sum(map(_tokens_of, value))
    return 0


def output_tokens_of(path: str, payload: Mapping[str, Any], assumed: int) -> int:
    """Return the limit on the output tokens of one answer, `assumed` if the request has none."""
    if path in WITHOUT_OUTPUT:
        return 0
    limits = [payload[name] for name in OUTPUT_LIMITS if isinstance(payload.get(name), int)]
    return min(limits, default=assumed)
