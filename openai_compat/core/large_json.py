"""Decoding of JSON texts of many megabytes, with turns for other greenlets and a limit on the number of values.

A text of 30 MB can be one image or ten million empty objects. The second takes seconds to decode and gigabytes to hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from .turns import TimeSlices, give_turn

LARGE_BYTES: Final = 65_536
"""Larger texts give other greenlets a turn while they are decoded. Smaller ones take 10 ms at most."""
MAX_STRUCTURE: Final = 500_000
"""Braces, brackets, commas and colons outside of texts, where closing ones do not count.

An embeddings call with the most token ids that OpenAI accepts has 300,000. Half a million take about 0.2 s to decode.
"""
STRUCTURE: Final = (b"{", b"[", b",", b":")
SLICE_BYTES: Final = 1_048_576
"""Bytes that are counted before other greenlets get a turn, about 3 ms of work."""


class TooManyValuesError(ValueError):
    """A JSON text has more than `MAX_STRUCTURE` structural characters."""


def parse_json(text: str | bytes, parse_constant: Callable[[str], Any] | None = None, *, strict: bool = True) -> Any:
    """Parse JSON. A large text gives turns between its objects and its numbers, as C code cannot be interrupted.

    Unless `strict`, strings may contain control characters, which models write.

    Raises:
        TooManyValuesError: The text has too many values to be decoded.
        ValueError, RecursionError: It is not JSON, or nested too deeply.
    """
    if len(text) <= LARGE_BYTES:
        options: dict[str, Any] = {} if strict else {"strict": False}
        return json.loads(text, parse_constant=parse_constant, **options)
    if has_too_many_values(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text):
        raise TooManyValuesError(f"the JSON text has more than {MAX_STRUCTURE} values")
    decoded = text if isinstance(text, str) else text.decode("utf-8-sig")
    give_turn()
    checked = TimeSlices().checked
    value = json.loads(
        decoded,
        strict=strict,
        object_pairs_hook=checked(dict),
        parse_float=checked(float),
        parse_int=checked(int),
        parse_constant=parse_constant,
    )
    give_turn()
    return value


def has_too_many_values(body: bytes) -> bool:
    """Return True if the JSON in `body` has more than `MAX_STRUCTURE` structural characters.

    Those inside of texts do not count. Only a body with very many of both needs the slower count that tells them apart.
    """
    if len(body) <= MAX_STRUCTURE or _count_everywhere(body) <= MAX_STRUCTURE:
        return False
    count = position = 0
    is_in_text = False
    while position < len(body):
        give_turn()
        end = _end_of_slice(body, position)
        parts = body[position:end].replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')
        outside = b" ".join(parts[is_in_text::2])
        count += sum(map(outside.count, STRUCTURE))
        if count > MAX_STRUCTURE:
            return True
        is_in_text ^= len(parts) % 2 == 0
        position = end
    return False


def _count_everywhere(body: bytes) -> int:
    count = 0
    for start in range(0, len(body), SLICE_BYTES):
        part = body[start : start + SLICE_BYTES]
        count += sum(map(part.count, STRUCTURE))
        if len(part) == SLICE_BYTES:
            give_turn()
    return count


def _end_of_slice(body: bytes, start: int) -> int:
    """Return the end of the slice at `start`, which divides no escape sequence."""
    end = start + SLICE_BYTES
    part = body[start:end]
    backslashes = len(part) - len(part.rstrip(b"\\"))
    return end + backslashes % 2
