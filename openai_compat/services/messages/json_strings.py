"""Escaping of control characters in JSON that arrives in fragments."""

from __future__ import annotations

import re
from typing import Final

from openai_compat.core.turns import TimeSlices

_CONTROL: Final = re.compile(r"[\x00-\x1f]")
_SPECIAL: Final = re.compile(r"\\.?|[\"\x00-\x1f]", re.DOTALL)


class ControlEscaper:
    """Escaper of the control characters in the strings of one JSON text.

    Models write line breaks into strings, which strict parsers refuse. Control characters between strings are white
    space and stay.
    """

    def __init__(self) -> None:
        self._is_in_string = False
        self._is_after_backslash = False

    def escape(self, fragment: str) -> str:
        """Return the next fragment of the text. It changes only if it has a control character in a string."""
        start = 1 if self._is_after_backslash else 0
        self._is_after_backslash = False
        if _CONTROL.search(fragment) is None:
            self._skip(fragment[start:])
            return fragment
        replace = TimeSlices().checked(self._replace)
        return fragment[:start] + _SPECIAL.sub(replace, fragment[start:])

    def _skip(self, fragment: str) -> None:
        """Update the state without a change. This is the usual case, for which replacing is faster than matching."""
        if "\\" in fragment:
            fragment = fragment.replace("\\\\", "").replace('\\"', "")
            self._is_after_backslash = fragment.endswith("\\")
        if fragment.count('"') % 2:
            self._is_in_string = not self._is_in_string

    def _replace(self, found: re.Match[str]) -> str:
        text = found[0]
        if text == '"':
            self._is_in_string = not self._is_in_string
        elif text == "\\":
            self._is_after_backslash = True
        elif len(text) == 1 and self._is_in_string:
            return f"\\u{ord(text):04x}"
        return text
