"""Tokens of a streamed answer, for calls whose stream ends before the upstream tells them."""

from __future__ import annotations

import re
from typing import Final

CHARS_PER_TOKEN: Final = 4
LONGEST_TOKEN: Final = 12
"""Characters up to which the text of an event is taken for one token."""
_STRING: Final = rb'"\s*:\s*"((?:[^"\\]|\\.)*)"'
_TEXTS: Final = re.compile(
    rb'"(?:content|reasoning_content|reasoning|refusal|arguments|text|thinking|partial_json|delta)' + _STRING
)
_DELTAS: Final = re.compile(rb'"delta' + _STRING)
"""Events of the Responses API repeat the complete text at the end, which is no delta."""
_FRAMES: Final = (b"data:", b"event:", b":")


class StreamSize:
    """An estimate of the tokens in the blocks of one stream.

    An upstream may put many tokens into one event, and several events may arrive in one block. A block that is about as
    long as one with a single token counts as one, without a look into it.
    """

    __slots__ = ("_texts", "_usual_bytes", "tokens")

    def __init__(self, *, has_deltas: bool = False) -> None:
        """Count only the deltas of the Responses API, if the stream has them."""
        self._texts = _DELTAS if has_deltas else _TEXTS
        self._usual_bytes = 0
        self.tokens = 0

    def add(self, block: bytes) -> None:
        """Count a block of complete events."""
        if len(block) <= self._usual_bytes:
            self.tokens += 1
            return
        texts = self._texts.findall(block)
        if not texts and not block.startswith(_FRAMES):
            texts = [block]  # plain text
        tokens = [-(-len(text) // CHARS_PER_TOKEN) if len(text) > LONGEST_TOKEN else 1 for text in texts if text]
        self.tokens += max(sum(tokens), 1)
        if len(tokens) == 1 and block.count(b"data:") == 1:  # a block of several events is no measure of one
            self._usual_bytes = len(block) - len(max(texts, key=len)) + LONGEST_TOKEN
