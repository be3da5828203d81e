"""Counts of the tokens in a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from openai_compat.core.tokens import TokenCounter, estimate_tokens, fixed_tokens, texts_of
from openai_compat.core.turns import TimeSlices
from openai_compat.services.openai_objects import to_tool_texts

SAMPLE_CHARS: Final = 16_384
"""Characters that an estimate reads, under a millisecond's work."""
PIECE_CHARS: Final = 32_768
"""Characters that are counted before other calls get a turn, 2 ms of work."""
MAX_COUNTED_CHARS: Final = 2_000_000
"""Characters that are counted, more than the largest context windows hold."""
MESSAGE_TOKENS: Final = 3
"""Tokens of each message beside its texts, and those of the answer's beginning."""


def estimate_prompt(chat: Mapping[str, Any]) -> int:
    """Return an estimate of the prompt's tokens, by the beginning of its texts."""
    texts = _texts_of(chat)
    length = sum(map(len, texts))
    tokens = read = 0
    for text in texts:
        sample = text[: SAMPLE_CHARS - read]
        tokens += estimate_tokens(sample)
        read += len(sample)
        if read >= SAMPLE_CHARS:
            break
    return _fixed_tokens(chat) + (round(tokens * length / read) if read else 0)


def count_prompt(chat: Mapping[str, Any], model: str, counter: TokenCounter) -> int:
    """Return the number of the prompt's tokens, with turns for other calls.

    The definitions of tools count as their JSON, and images and files as `PART_TOKENS` says.
    """
    texts = _texts_of(chat)
    length = sum(map(len, texts))
    count = TimeSlices().checked(counter.count)
    tokens = read = 0
    for piece in _pieces(texts):
        tokens += count(piece, model)
        read += len(piece)
    return _fixed_tokens(chat) + (round(tokens * length / read) if read else 0)


def _pieces(texts: Sequence[str]) -> Iterator[str]:
    """Yield the texts in pieces, up to `MAX_COUNTED_CHARS` together."""
    left = MAX_COUNTED_CHARS
    for text in texts:
        counted = text[:left]
        left -= len(counted)
        for start in range(0, len(counted), PIECE_CHARS):
            yield counted[start : start + PIECE_CHARS]


def _texts_of(chat: Mapping[str, Any]) -> list[str]:
    texts = [text for message in chat["messages"] for text in texts_of(message)]
    return texts + to_tool_texts(chat.get("tools") or ())


def _fixed_tokens(chat: Mapping[str, Any]) -> int:
    return MESSAGE_TOKENS + sum(MESSAGE_TOKENS + fixed_tokens(message) for message in chat["messages"])
