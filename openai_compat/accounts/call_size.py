"""The most tokens that a call may use, estimated before it is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

CHARS_PER_TOKEN: Final = 4
SMALL_BYTES: Final = 16_384
"""Bodies up to this length are counted by their bytes, which counts a little too much."""
MEDIA_TOKENS: Final = 1500
"""Tokens of an image or a file, whose length says little about them."""
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
LARGEST_VOCABULARY: Final = 1_000_000
"""Number above the ids of all models' tokens."""
NO_FIELDS: Final[frozenset[str]] = frozenset()
CONTENT_FIELDS: Final = frozenset({"messages", "input", "prompt"})
"""Fields of a request that may have images, audio and files. All other fields are text, whatever they look like."""
STRUCTURAL_NAMES: Final = frozenset({"role", "content", "type", "text"})
"""Names of properties of messages and their parts, which models get as a few tokens at most."""
MEDIA_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "image": frozenset({"url"}),
    "image_url": frozenset({"url", "image_url"}),
    "video_url": frozenset({"url"}),
    "audio_url": frozenset({"url"}),
    "input_audio": frozenset({"data"}),
    "file": frozenset({"file_data", "file_id"}),
    "input_image": frozenset({"image_url", "file_id"}),
    "input_file": frozenset({"file_data", "file_url", "file_id"}),
    "computer_screenshot": frozenset({"image_url", "file_id"}),
}
"""Name of an object's field, or type of a part -> fields that have or name an image, audio or a file."""
SOURCE_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "base64": frozenset({"data"}),
    "url": frozenset({"url"}),
    "file": frozenset({"file_id"}),
}
"""The same by the type of the `source` of an image or a document in Anthropic's form."""
ITEM_FIELDS: Final[Mapping[str, frozenset[str]]] = {"image_generation_call": frozenset({"result"})}
"""The same by the type of an item of the Responses API's `input`."""
TEXT_FILE: Final = "data:text/"
"""Beginning of a file that models get as its text."""


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
    if 0 < len(body) <= SMALL_BYTES and not _may_have_media(body):
        return -(-len(body) // CHARS_PER_TOKEN)
    return sum(
        _tokens_of_content(value, name) if name in CONTENT_FIELDS else _tokens_of(value)
        for name, value in payload.items()
    )


def tokens_of_items(items: Iterable[Mapping[str, Any]]) -> int:
    """Return an estimate of the input tokens of stored items, which a call repeats without sending them."""
    stored = [{name: part for name, part in item.items() if name not in OWN_FIELDS} for item in items]
    return _tokens_of_content(stored, "input") if stored else 0


def _may_have_media(body: bytes) -> bool:
    """Return True if a body may have an image or a file. The names of its fields may be written with escapes."""
    return b'_url"' in body or b'"file_' in body or b'"source"' in body or b"\\u00" in body


def _tokens_of(value: Any) -> int:
    """Return the tokens of a value that is text alone, with its names of properties. Each value has at least one."""
    if isinstance(value, str):
        length = len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
        return -(-length // CHARS_PER_TOKEN) or 1
    if isinstance(value, Mapping):
        return _tokens_of("".join(value)) + sum(map(_tokens_of, value.values()))
    if isinstance(value, list | tuple):
        return (len(value) if _are_token_ids(value) else sum(map(_tokens_of, value))) or 1
    return len(str(value)) // CHARS_PER_TOKEN or 1


def _are_token_ids(values: Sequence[Any]) -> bool:
    return set(map(type, values)) == {int} and min(values) >= 0 and max(values) < LARGEST_VOCABULARY


def _tokens_of_content(value: Any, key: str) -> int:
    """Return the tokens of messages, items or parts of them, which the field `key` of their holder has."""
    if isinstance(value, list | tuple) and value and not isinstance(value[0], int):
        return sum(_tokens_of_content(part, key) for part in value)
    if not isinstance(value, Mapping):
        return _tokens_of(value)
    media = _media_fields(value, key)
    tokens = 0
    for name, part in value.items():
        if name in media and isinstance(part, str):
            tokens += max(MEDIA_TOKENS, _tokens_of(part)) if part.startswith(TEXT_FILE) else MEDIA_TOKENS
        else:
            # Below the top, `input` has the arguments of a tool, which are text.
            tokens += _tokens_of(part) if name == "input" else _tokens_of_content(part, name)
            tokens += 0 if name in STRUCTURAL_NAMES else _tokens_of(name)
    return tokens or 1


def _media_fields(holder: Mapping[str, Any], key: str) -> frozenset[str]:
    """Return the names of the fields of an object that have or name an image, audio or a file."""
    type_ = holder.get("type")
    if not isinstance(type_, str):
        type_ = ""
    if key == "source":
        return SOURCE_FIELDS.get(type_, NO_FIELDS)
    found = MEDIA_FIELDS.get(key) or MEDIA_FIELDS.get(type_)
    if found is None and key == "input":
        found = ITEM_FIELDS.get(type_)
    return found or NO_FIELDS


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
