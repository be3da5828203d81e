"""Characters that an upstream split into surrogate halves over two events."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Final

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class HalfJoiner:
    """Joins the halves of characters in the texts of one stream. A half without its other becomes U+FFFD."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[Hashable, str] = {}

    def __bool__(self) -> bool:
        """True while a first half waits for the second."""
        return bool(self._open)

    def join(self, key: Hashable, text: str) -> str:
        """Return the text with complete characters. A first half at its end waits for the next text of `key`."""
        if text.isascii() and not self._open:
            return text
        before = self._open.pop(key, "") if text else ""
        if not before and _SURROGATE.search(text) is None:
            return text
        text = before + text
        if "\ud800" <= text[-1] <= "\udbff":
            self._open[key], text = text[-1], text[:-1]
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
