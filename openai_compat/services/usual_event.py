"""Knowing again, at a fraction of an inspection's cost, the events that are nearly all of a stream."""

from __future__ import annotations

import re
from typing import Final

MOST_LESSONS: Final = 4
"""The first event has a role, a tool's call begins in its own way: so many shapes are tried for the usual one."""
MOST_BYTES: Final = 16_384
"""A larger event is not the usual one, and what is around its text is not kept."""
# Possessive: an ordinary repetition would keep a place to go back to for each character of a long text.
_TEXT: Final = re.compile(rb'"(?:content|text|reasoning_content|arguments)": ?"((?:[^"\\]++|\\.)*+)"')
_INSIDE_STRING: Final = re.compile(rb'(?:[^"\\\r\n]++|\\[^\r\n])*+')


class UsualEvent:
    """What the events of one stream have in common: each is the same but for its text.

    One that was inspected, and had nothing of note, shows what stands before the text and after it, and what may stay
    of that. Another that differs in nothing but a text within its quotes has nothing of note either.
    """

    __slots__ = ("_after", "_before", "_kept_after", "_lessons")

    def __init__(self) -> None:
        self._before = self._after = self._kept_after = b""
        self._lessons = 0

    def learn(self, event: bytes, kept: bytes) -> None:
        """`event` is a single one that had nothing of note, `kept` what the client got of it."""
        if self._lessons == MOST_LESSONS or len(event) > MOST_BYTES:
            return
        self._lessons += 1
        found = _TEXT.search(event)
        if found is not None and kept.startswith(event[: found.end(1)]):
            self._before, self._after = event[: found.start(1)], event[found.end(1) :]
            self._kept_after = kept[found.end(1) :]

    def keep(self, event: bytes) -> bytes | None:
        """What the client gets of `event`; None for one that is not like the others."""
        start, end = len(self._before), len(event) - len(self._after)
        if not (event.endswith(self._after) and event.startswith(self._before) and start):
            return None
        if _INSIDE_STRING.fullmatch(event, start, end) is None:
            return None
        return event if self._kept_after == self._after else event[:end] + self._kept_after
