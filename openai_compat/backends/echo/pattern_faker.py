"""A generator of strings that match a regular expression.

The pattern comes from a client, so it is parsed but never run: a bad one would block the worker for minutes.
Lookarounds, back references, flags and anchors inside the pattern are refused.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import chain
from re import _constants as sre  # type: ignore[attr-defined]  # private, but the only parser of the standard library
from re import _parser  # type: ignore[attr-defined]
from typing import Any, Final, NamedTuple

MAX_MATCH_CHARS: Final = 10_000
MAX_PATTERN_CHARS: Final = 1_000

_CANDIDATES: Final = "aA0-_ .!" + "".join(map(chr, range(33, 127)))
"""Characters to try for a class, in this order."""
_CATEGORIES: Final = {
    sre.CATEGORY_DIGIT: r"\d",
    sre.CATEGORY_NOT_DIGIT: r"\D",
    sre.CATEGORY_SPACE: r"\s",
    sre.CATEGORY_NOT_SPACE: r"\S",
    sre.CATEGORY_WORD: r"\w",
    sre.CATEGORY_NOT_WORD: r"\W",
}
_NAMED_GROUP: Final = re.compile(r"(?<!\\)\(\?<(?=\w)")
"""The beginning of a named group as JavaScript and JSON Schema write it."""


class UnsupportedPatternError(ValueError):
    """The pattern is invalid, too long, or uses something that is not supported."""


class _Repeat(NamedTuple):
    minimum: int
    maximum: int
    parts: list[_Part]

    def times(self, repeats: int) -> int:
        return min(max(self.minimum, repeats), self.maximum)


_Part = str | _Repeat
"""One character, or a repeated sequence."""


def generate_match(pattern: str, min_length: int, max_length: int) -> str:
    """Return a string of `min_length` to `max_length` characters that `pattern` matches.

    Raises:
        UnsupportedPatternError: the pattern is not supported, or no string of that length was found.
    """
    parts = _parse(pattern)
    repeats = bisect_left(range(min_length), min_length, key=lambda repeats: _length(parts, repeats))
    length = _length(parts, repeats)
    if length > MAX_MATCH_CHARS:
        raise UnsupportedPatternError(f"its pattern asks for more than {MAX_MATCH_CHARS} characters")
    if not min_length <= length <= max_length:
        raise UnsupportedPatternError(
            f"no string of {min_length} to {max_length} characters was found for the pattern {pattern!r}"
        )
    return _generate(parts, repeats)


def _length(parts: list[_Part], repeats: int) -> int:
    """Return the length of the string in which each part is repeated `repeats` times, as far as its bounds allow."""
    return sum(1 if isinstance(part, str) else part.times(repeats) * _length(part.parts, repeats) for part in parts)


def _generate(parts: list[_Part], repeats: int) -> str:
    """Return the string whose length is `_length(parts, repeats)`."""
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
        elif times := part.times(repeats):
            text += _generate(part.parts, repeats) * times
    return text


def _parse(pattern: str) -> list[_Part]:
    if len(pattern) > MAX_PATTERN_CHARS:
        raise UnsupportedPatternError(f"its pattern is longer than {MAX_PATTERN_CHARS} characters")
    try:
        parsed = _parser.parse(_NAMED_GROUP.sub("(?P<", pattern))
        if parsed.state.flags != re.UNICODE:
            raise re.error("it sets flags")
        nodes = list(_flatten(parsed))
        if nodes and nodes[0] == (sre.AT, sre.AT_BEGINNING):
            del nodes[0]
        if nodes and nodes[-1] == (sre.AT, sre.AT_END):
            del nodes[-1]
        return list(_convert(nodes))
    except (re.error, OverflowError, RecursionError) as error:
        raise UnsupportedPatternError(f"the pattern {pattern!r} is not supported ({error})") from error


def _flatten(nodes: Iterable[Any]) -> Iterator[Any]:
    """Yield the nodes with groups replaced by their content, and alternatives by the first one."""
    for code, value in nodes:
        if code is sre.BRANCH:
            yield from _flatten(value[1][0])
        elif code is sre.SUBPATTERN:
            _, added_flags, removed_flags, content = value
            if added_flags or removed_flags:
                raise re.error("it sets flags")
            yield from _flatten(content)
        else:
            yield code, value


def _convert(nodes: Iterable[Any]) -> Iterator[_Part]:
    for code, value in nodes:
        if code is sre.LITERAL:
            yield chr(value)
        elif code is sre.NOT_LITERAL:
            yield _choose([(sre.NEGATE, None), (sre.LITERAL, value)])
        elif code is sre.IN:
            yield _choose(value)
        elif code is sre.ANY:
            yield "a"
        elif code in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            minimum, maximum, content = value
            yield _Repeat(minimum, maximum, list(_convert(_flatten(content))))
        else:
            raise re.error(f"it uses {value if code is sre.AT else code}")


def _choose(items: list[Any]) -> str:
    """Return a character of the class, an ordinary one if there is one."""
    is_negated = items[0][0] is sre.NEGATE
    items = items[is_negated:]
    listed = (chr(value if code is sre.LITERAL else value[0]) for code, value in items if code is not sre.CATEGORY)
    for character in chain(_CANDIDATES, listed):
        if any(_accepts(code, value, character) for code, value in items) is not is_negated:
            return character
    raise re.error("it has a class without an ordinary character")


def _accepts(code: Any, value: Any, character: str) -> bool:
    if code is sre.LITERAL:
        return bool(value == ord(character))
    if code is sre.RANGE:
        return bool(value[0] <= ord(character) <= value[1])
    return re.match(_CATEGORIES[value], character) is not None
