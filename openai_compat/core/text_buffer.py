"""Text that is collected from many short parts."""

from __future__ import annotations

from typing import Final

_ENCODING: Final = ("utf-8", "surrogatepass")
"""Keeps half surrogate pairs, which parts may contain."""


class TextBuffer:
    """A text that grows by parts in constant time each.

    It is kept in UTF-8, because Python's strings take 50 bytes more each, which is ten times the text of a token.
    """

    __slots__ = ("_encoded",)

    def __init__(self) -> None:
        self._encoded = bytearray()

    def __bool__(self) -> bool:
        return bool(self._encoded)

    def __str__(self) -> str:
        return self._encoded.decode(*_ENCODING)

    def add(self, part: str) -> None:
        """Append a part."""
        self._encoded += part.encode(*_ENCODING)
