"""Incremental detokenizer, which turns tokens into text one by one and never splits a character."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

CONTEXT_TOKENS: Final = 6
"""Tokens before the first one. They decide whether its leading space is written."""
MAX_HELD_TOKENS: Final = 12
"""Tokens after which incomplete bytes are returned as they are, three times as many as the longest character takes."""
REPLACEMENT: Final = "\ufffd"


class Detokenizer:
    """Text that each token of one sequence adds.

    The text of a token depends on its neighbours. A character may take several tokens, and some vocabularies write a
    leading space only in the middle of a text. So each text is the difference between two decodings of the last tokens.
    """

    def __init__(self, tokenizer: Any, context: Sequence[int] = (), *, keeps_special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._keeps_special = keeps_special
        self._tokens = list(context[-CONTEXT_TOKENS:])
        self._emitted_count = len(self._tokens)
        self._emitted_text = self._decode(self._tokens)

    def push(self, token: int) -> str:
        """Return the text that the token completes, which is empty while a character is incomplete."""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        if text.endswith(REPLACEMENT) and len(self._tokens) - self._emitted_count < MAX_HELD_TOKENS:
            return ""
        return self._emit(text)

    def flush(self) -> str:
        """Return the rest at the end of the sequence, with an incomplete character as the replacement character."""
        return self._emit(self._decode(self._tokens)) if len(self._tokens) > self._emitted_count else ""

    def _emit(self, text: str) -> str:
        added = text[len(self._emitted_text) :]
        self._tokens = self._tokens[self._emitted_count :] or self._tokens
        self._emitted_count = len(self._tokens)
        self._emitted_text = self._decode(self._tokens)
        return added

    def _decode(self, tokens: Sequence[int]) -> str:
        if not tokens:
            return ""
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=not self._keeps_special, clean_up_tokenization_spaces=False
        )
        return text


def token_text(tokenizer: Any, token: int) -> str:
    """Return the text of a single token, as it is shown among the top log probabilities."""
    text: str = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    return text
