"""From tokens to text, one by one, without ever breaking a character or a word piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

CONTEXT: Final = 6
"""Tokens before the first one that decide whether its leading space is written."""
HELD: Final = 12
"""Tokens after which bytes that make no character are given out as they are: three times the longest character."""
REPLACEMENT: Final = "\ufffd"


class Detokenizer:
    """The text that each token of one choice adds.

    What a token says depends on its neighbours: a character may take several of them, and some vocabularies write a
    leading space only in the middle of a text. So each text is the difference between two decodings of the last few.
    """

    def __init__(self, tokenizer: Any, context: Sequence[int] = (), *, keeps_special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._keeps_special = keeps_special
        self._tokens = list(context[-CONTEXT:])
        self._told = len(self._tokens)
        self._told_text = self._decode(self._tokens)

    def push(self, token: int) -> str:
        """The text that is certain with this token; empty while a character is incomplete."""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        if text.endswith(REPLACEMENT) and len(self._tokens) - self._told < HELD:
            return ""
        return self._tell(text)

    def flush(self) -> str:
        """What is left at the end: an incomplete character, as the replacement character."""
        return self._tell(self._decode(self._tokens)) if len(self._tokens) > self._told else ""

    def _tell(self, text: str) -> str:
        added = text[len(self._told_text) :]
        self._tokens = self._tokens[self._told :] or self._tokens
        self._told = len(self._tokens)
        self._told_text = self._decode(self._tokens)
        return added

    def _decode(self, tokens: Sequence[int]) -> str:
        if not tokens:
            return ""
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=not self._keeps_special, clean_up_tokenization_spaces=False
        )
        return text


def token_text(tokenizer: Any, token: int) -> str:
    """One token by itself, as it is shown among the alternatives."""
    text: str = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    return text
