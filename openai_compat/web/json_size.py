"""Limit on the number of values in a JSON body, which is found in its bytes before anything is decoded.

A body of 30 MB can be one image or ten million empty objects. The second takes seconds to decode and gigabytes to hold.
"""

from __future__ import annotations

from typing import Final

from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.turns import give_turn

MAX_STRUCTURE: Final = 500_000
"""Braces, brackets, commas and colons outside of texts, where closing ones do not count.

An embeddings call with the most token ids that OpenAI accepts has 300,000. Half a million take about 0.2 s to decode.
"""
STRUCTURE: Final = (b"{", b"[", b",", b":")
SLICE_BYTES: Final = 1_048_576
"""Bytes that are counted before other greenlets get a turn, about 3 ms of work."""


def check_structure(body: bytes) -> None:
    """Raise InvalidRequestError if the JSON in `body` has more than `MAX_STRUCTURE` structural characters.

    Those inside of texts do not count. Only a body with very many of both needs the slower count that tells them apart.
    """
    if len(body) <= MAX_STRUCTURE or sum(map(body.count, STRUCTURE)) <= MAX_STRUCTURE:
        return
    count = position = 0
    is_in_text = False
    while position < len(body):
        give_turn()
        end = _end_of_slice(body, position)
        parts = body[position:end].replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')
        outside = b" ".join(parts[is_in_text::2])
        count += sum(map(outside.count, STRUCTURE))
        if count > MAX_STRUCTURE:
            raise InvalidRequestError(
                "The JSON body of your request has too many values. This server accepts at most "
                f"{MAX_STRUCTURE} braces, brackets, commas and colons outside of strings."
            )
        is_in_text ^= len(parts) % 2 == 0
        position = end


def _end_of_slice(body: bytes, start: int) -> int:
    """Return the end of the slice at `start`, which divides no escape sequence."""
    end = start + SLICE_BYTES
    part = body[start:end]
    backslashes = len(part) - len(part.rstrip(b"\\"))
    return end + backslashes % 2
