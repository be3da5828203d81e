"""Messages about prompts that exceed a model's context window, read and written.

Servers word them differently, and some have no code for them. Clients of Anthropic's API recognise one wording only.
"""

from __future__ import annotations

import re
from typing import Final

CODES: Final = frozenset({"context_length_exceeded", "exceed_context_size_error"})
"""Codes and types of such an error (OpenAI's and llama.cpp's)."""
PREFIX: Final = "prompt is too long"
"""Beginning of Anthropic's message."""
_TOO_LONG: Final = re.compile(r"(?:prompt|input) is too long", re.IGNORECASE)
_WINDOW: Final = re.compile(r"context (?:length|size|window|limit)|input token count", re.IGNORECASE)
_EXCEEDED: Final = re.compile(r"exceed|maximum|too long|too large|longer than|larger than", re.IGNORECASE)
_LIMIT: Final = re.compile(
    r"(?:context (?:length|size|window|limit)|maximum)\D{0,40}?(?P<after>\d[\d,]*)|> ?(?P<greater>\d[\d,]*)",
    re.IGNORECASE,
)
_PROMPT: Final = re.compile(r"(\d[\d,]*) (?:tokens )?in (?:the|your) (?:messages|prompt|input)", re.IGNORECASE)
"""The part of the prompt in a message that also counts the answer's tokens (OpenAI, vLLM)."""
_NUMBER: Final = re.compile(r"\d[\d,]*")


def is_overflow(message: str, *names: str | None) -> bool:
    """Return True if an error with these names or this message says that the prompt is too long.

    A prompt that fits, and only leaves too little room for `max_tokens`, is not too long.
    """
    is_named = not CODES.isdisjoint(names) or _TOO_LONG.search(message) is not None
    if not is_named and not (_WINDOW.search(message) and _EXCEEDED.search(message)):
        return False
    prompt, limit = _PROMPT.search(message), _limit_in(message)
    return prompt is None or limit is None or _to_int(prompt[1]) > limit


def to_overflow_message(message: str) -> str:
    """Return the message as Anthropic words it, with the numbers of tokens that `message` has.

    Claude Code summarises a conversation once it reads this wording.
    """
    limit = _limit_in(message)
    if limit is None:
        return f"{PREFIX} for the context window of this model"
    prompt = _PROMPT.search(message)
    tokens = max(map(_to_int, [prompt[1]] if prompt else _NUMBER.findall(message)))
    if tokens <= limit:
        return f"{PREFIX}: it has more than {limit} tokens"
    return f"{PREFIX}: {tokens} tokens > {limit} maximum"


def _limit_in(message: str) -> int | None:
    found = _LIMIT.search(message)
    return None if found is None else _to_int(found["after"] or found["greater"])


def _to_int(digits: str) -> int:
    return int(digits.replace(",", ""))
