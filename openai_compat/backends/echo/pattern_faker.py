"""Makes a string that a regular expression matches, without ever running the expression.

A client's pattern is not run, for a bad one would keep the whole worker busy; it is read, and the string is written
along the way. Read are literals, `.`, escapes, `[...]`, groups, `|`, `?`, `*`, `+`, `{m,n}`, and anchors at the ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

MAX_MATCH_CHARS: Final = 10_000
"""Characters of the longest string that is made."""
MAX_PATTERN_CHARS: Final = 1_000
MAX_GROUP_DEPTH: Final = 50

_ESCAPED_CLASSES: Final = {"d": "0-9", "w": "A-Za-z0-9_", "s": " ", "D": "^0-9", "W": "^A-Za-z0-9_", "S": "^ \t\r\n"}
_CONTROLS: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
_QUANTIFIER = re.compile(r"([*+?]|\{(\d+)(,?)(\d*)\})\??")
_USUAL_CHARACTERS: Final = "aA0-_ .!" + "".join(map(chr, range(33, 127)))

_Node = Callable[[int], str]
"""Writes its part of the string; repeats what may be repeated about as often as the argument says."""


class UnreadablePatternError(ValueError):
    """The pattern uses something that is not read here, or is broken."""


def make_matching(pattern: str, least: int, most: int) -> str:
    """A string of `least` to `most` characters that `pattern` matches.

    Raises:
        UnreadablePatternError: the pattern is not understood, or nothing of that length was found.
    """
    if len(pattern) > MAX_PATTERN_CHARS:
        raise UnreadablePatternError(f"its pattern is longer than {MAX_PATTERN_CHARS} characters")
    node = _PatternReader(pattern).read()
    for repeats in (0, 1, *range(2, 41), least):
        text = node(repeats)
        if least <= len(text) <= most:
            return text
    raise UnreadablePatternError(f"no string of {least} to {most} characters was found for the pattern {pattern!r}")


class _PatternReader:
    """Reads a pattern once from left to right."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.position = 0
        self.depth = 0

    def read(self) -> _Node:
        node = self._alternatives()
        if self.position < len(self.pattern):
            raise self._unreadable()
        return node

    def _unreadable(self) -> UnreadablePatternError:
        return UnreadablePatternError(f"the pattern {self.pattern!r} is not understood at character {self.position}")

    def _next(self) -> str:
        if self.position >= len(self.pattern):
            raise self._unreadable()
        self.position += 1
        return self.pattern[self.position - 1]

    def _skip(self, text: str) -> bool:
        if not self.pattern.startswith(text, self.position):
            return False
        self.position += len(text)
        return True

    def _alternatives(self) -> _Node:
        """The first of the alternatives; the others are only read."""
        first = self._sequence()
        while self._skip("|"):
            self._sequence()
        return first

    def _sequence(self) -> _Node:
        nodes: list[_Node] = []
        if self.depth == 0:
            self._skip("^")
        while not self._is_at_end():
            if self.depth == 0 and self._skip("$"):
                if self._is_at_end():
                    break
                raise self._unreadable()
            nodes.append(self._quantified(self._atom()))
        return lambda repeats: _join(nodes, repeats)

    def _is_at_end(self) -> bool:
        """Whether an alternative ends here."""
        return self.position >= len(self.pattern) or self.pattern[self.position] in "|)"

    def _quantified(self, node: _Node) -> _Node:
        match = _QUANTIFIER.match(self.pattern, self.position)
        if match is None:
            return node
        self.position = match.end()
        least, most = _bounds(match)

        def repeat(repeats: int) -> str:
            text = node(repeats)
            times = min(max(least, repeats), most)
            if len(text) * times > MAX_MATCH_CHARS:
                raise _too_long()
            return text * times

        return repeat

    def _atom(self) -> _Node:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return _constant(_choose(self._class_body()))
        if character == ".":
            return _constant("a")
        if character == "\\":
            return _constant(self._escaped())
        if character in "*+?{^$":
            raise self._unreadable()
        return _constant(character)

    def _group(self) -> _Node:
        if self._skip("?") and not self._skip(":"):
            name = re.compile(r"P?<[A-Za-z_]\w*>").match(self.pattern, self.position)
            if name is None:
                raise self._unreadable()
            self.position = name.end()
        self.depth += 1
        if self.depth > MAX_GROUP_DEPTH:
            raise self._unreadable()
        node = self._alternatives()
        self.depth -= 1
        if not self._skip(")"):
            raise self._unreadable()
        return node

    def _escaped(self) -> str:
        character = self._next()
        if character in _ESCAPED_CLASSES:
            return _choose(_ESCAPED_CLASSES[character])
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character.isalnum():
            raise self._unreadable()
        return character

    def _class_body(self) -> str:
        """What is between `[` and `]`, its escapes resolved: `^`, characters, and ranges with `-`."""
        body = "^" if self._skip("^") else ""
        while not self._skip("]"):
            character = self._next()
            if character == "\\":
                character = self._next()
                if character in "DWS" or (
                    character.isalnum() and character not in "dws" and character not in _CONTROLS
                ):
                    raise self._unreadable()
                character = _ESCAPED_CLASSES.get(character) or _CONTROLS.get(character) or f"{character}-{character}"
            elif character == "^":
                character = "^-^"
            body += character
        return body


def _join(nodes: list[_Node], repeats: int) -> str:
    text = ""
    for node in nodes:
        text += node(repeats)
        if len(text) > MAX_MATCH_CHARS:
            raise _too_long()
    return text


def _too_long() -> UnreadablePatternError:
    return UnreadablePatternError(f"its pattern asks for more than {MAX_MATCH_CHARS} characters")


def _bounds(quantifier: re.Match[str]) -> tuple[int, int]:
    simple = {"?": (0, 1), "*": (0, MAX_MATCH_CHARS), "+": (1, MAX_MATCH_CHARS)}
    if quantifier[1] in simple:
        return simple[quantifier[1]]
    least = int(quantifier[2])
    if quantifier[4]:
        return least, int(quantifier[4])
    return least, MAX_MATCH_CHARS if quantifier[3] else least


def _constant(text: str) -> _Node:
    return lambda repeats: text


def _choose(body: str) -> str:
    """A character of the class: its first, or for a class of all others a usual one that it leaves in."""
    ranges = _ranges(body.removeprefix("^"))
    if not body.startswith("^"):
        if not ranges:
            raise UnreadablePatternError("a class without characters matches nothing")
        return ranges[0][0]
    for character in _USUAL_CHARACTERS:
        if not any(first <= character <= last for first, last in ranges):
            return character
    raise UnreadablePatternError("no usual character is left in the class")


def _ranges(body: str) -> list[tuple[str, str]]:
    ranges = []
    position = 0
    while position < len(body):
        if body[position + 1 : position + 2] == "-" and position + 2 < len(body):
            ranges.append((body[position], body[position + 2]))
            position += 3
        else:
            ranges.append((body[position], body[position]))
            position += 1
    return ranges
