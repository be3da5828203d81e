"""The most tokens that a call may use, estimated before it is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
OUTPUT_LIMITS: Final[Mapping[str, tuple[str, ...]]] = {
    "chat/completions": ("max_completion_tokens", "max_tokens"),
    "responses": ("max_output_tokens",),
    "responses/compact": ("max_output_tokens",),
}
"""Path of a call -> the fields that limit its output. A field of another endpoint limits nothing."""
OTHER_OUTPUT_LIMITS: Final = ("max_tokens",)
OWN_FIELDS: Final = frozenset({"id", "status"})
"""Fields that a stored item has for this server's clients, and that no model gets."""
MEDIA_FIELDS: Final = frozenset({"url", "image_url", "file_data", "file_url"})
"""Fields that may have an image or a file as a `data:` URL."""


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
    @property
    def prompts(self) -> int: ...


def input_tokens_of(body: bytes, payload: Mapping[str, Any]) -> int:
    """Return an estimate of the input tokens, rather too high than too low for text in Latin letters."""
    if 0 < len(body) <= SMALL_BYTES and b'"data:' not in body:
        return -(-len(body) // CHARS_PER_TOKEN)
    return _tokens_of(payload)


def tokens_of_items(items: Iterable[Mapping[str, Any]]) -> int:
    """Return an estimate of the input tokens of stored items, which a call repeats without sending them."""
    return sum(_tokens_of({name: part for name, part in item.items() if name not in OWN_FIELDS}) for item in items)


def _tokens_of(value: Any) -> int:
    if isinstance(value, str):
        return -(-(len(value) if value.isascii() else len(value.encode("utf-8", "replace"))) // CHARS_PER_TOKEN)
    if isinstance(value, Mapping):
        return sum(MEDIA_TOKENS if _is_media(value, name) else _tokens_of(part) for name, part in value.items())
    if isinstance(value, list | tuple):
        if set(map(type, value)) == {int}:
            return len(value)  # token ids
        return sum(map(_tokens_of, value))
    return 0


def _is_media(holder: Mapping[str, Any], name: str) -> bool:
    """Return True if a field has an image, audio or a file as base64. A text is not one, however it begins."""
    value = holder[name]
    if not isinstance(value, str):
        return False
    if name == "data":
        return holder.get("type") == BASE64 or "format" in holder
    if name == "result":
        return holder.get("type") == "image_generation_call"
    return name in MEDIA_FIELDS and (name == "file_data" or value.startswith("data:"))


def output_tokens_of(path: str, payload: Mapping[str, Any], assumed: int) -> int:
    """Return the limit on the output tokens of one answer, `assumed` if the request has none.

    The highest one counts if it has two. One below 1 is none, as some upstreams take it for no limit.
    """
    if path in WITHOUT_OUTPUT:
        return 0
    found = (payload.get(name) for name in OUTPUT_LIMITS.get(path, OTHER_OUTPUT_LIMITS))
    limits = [limit for limit in found if isinstance(limit, int) and limit > 0]
    return max(limits, default=assumed)


def answers_of(call: AnyCall) -> int:
    """Return the number of answers that the model writes, of which it may return the best ones only."""
    best_of = call.payload.get("best_of")
    written = best_of if call.path == "completions" and isinstance(best_of, int) else 1
    return max(call.choices, call.prompts * written, 1)
