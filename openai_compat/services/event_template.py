"""Recognition of a stream's typical event by the bytes around its text, at a fraction of the cost of an inspection."""

from __future__ import annotations

import re
from typing import Final

from openai_compat.backends.parsing.json_check import is_utf8

MAX_SAMPLES: Final = 8
"""Events tried as the template: the first carries a role, and a tool call starts with a shape of its own."""
MAX_TEMPLATE_BYTES: Final = 16_384
"""Larger events are not typical and would keep large buffers alive."""
# Possessive: an ordinary repetition would keep a backtracking state for each character of a long text.
_TEXT: Final = re.compile(
    rb'"(?:content|text|reasoning_content|arguments|thinking|partial_json)": ?"((?:[^"\\]++|\\.)*+)"'
)
# Surrogates may be halves of a character that is split over two events.
_INSIDE_STRING: Final = re.compile(rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[\da-fA-F]{4}))*+')


class EventTemplate:
    """The bytes around the text of a stream's typical event.

    An inspected event with nothing of note is a sample: it shows the bytes before and after the text, and what the
    client gets of the latter. An event that differs from it only within the quoted text has nothing of note either.
    """

    __slots__ = ("_after", "_before", "_kept_after", "_samples")

    def __init__(self) -> None:
        self._before = self._after = self._kept_after = b""
        self._samples = 0

    def train(self, event: bytes, kept: bytes) -> None:
        """Use `event`, a single one with nothing of note, as the template. `kept` is what the client got of it."""
        if self._samples == MAX_SAMPLES or len(event) > MAX_TEMPLATE_BYTES:
            return
        self._samples += 1
        found = _TEXT.search(event)
        if found is not None and kept.startswith(event[: found.end(1)]):
            self._before, self._after = event[: found.start(1)], event[found.end(1) :]
            self._kept_after = kept[found.end(1) :]

    def match(self, event: bytes) -> bytes | None:
        """Return what the client gets of `event`, or None if it does not match."""
        start, end = len(self._before), len(event) - len(self._after)
        if not (event.endswith(self._after) and event.startswith(self._before) and start):
            return None
        if _INSIDE_STRING.fullmatch(event, start, end) is None or not (event.isascii() or is_utf8(event)):
            return None
        return event if self._kept_after == self._after else event[:end] + self._kept_after
