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
_SUMS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"exceed context limit: (?P<prompt>\d+) \+ (?P<answer>\d+) > (?P<limit>\d+)",
        r"context length is (?P<limit>\d+) tokens\D+\d+ tokens \((?P<prompt>\d+) in the (?:messages|prompt), "
        r"(?P<answer>\d+) in the completion\)",
        r"is too large: (?P<answer>\d+)\. This model's maximum context length is (?P<limit>\d+) tokens and your "
        r"request has (?P<prompt>\d+) input tokens",
    )
)
"""Messages that have the prompt's tokens and the answer's (Anthropic, OpenAI and earlier vLLM, vLLM)."""


def is_overflow(message: str, *names: str | None) -> bool:
    """Return True if an error with these names or this message says that the prompt is too long.

    A prompt that fits, and only leaves too little room for `max_tokens`, is not too long.
    """
    if (counts := _counts_in(message)) is not None:
        return counts[0] >= counts[2]
    is_named = not CODES.isdisjoint(names) or _TOO_LONG.search(message) is not None
    if not is_named and not (_WINDOW.search(message) and _EXCEEDED.search(message)):
        return False
    prompt, limit = _PROMPT.search(message), _limit_in(message)
    return prompt is None or limit is None or _to_int(prompt[1]) > limit


def to_overflow_message(message: str) -> str:
    """Return the message as Anthropic words it, with the numbers of tokens that `message` has.

    Claude Code summarises a conversation once it reads this wording.
    """
    if (counts := _counts_in(message)) is not None:
        return f"{PREFIX}: {counts[0]} tokens > {counts[2]} maximum"
    limit = _limit_in(message)
    if limit is None:
        return f"{PREFIX} for the context window of this model"
    prompt = _PROMPT.search(message)
    tokens = max(map(_to_int, [prompt[1]] if prompt else _NUMBER.findall(message)))
    if tokens <= limit:
        return f"{PREFIX}: it has more than {limit} tokens"
    return f"{PREFIX}: {tokens} tokens > {limit} maximum"


def to_room_message(message: str) -> str | None:
    """Return a message about too large a `max_tokens` as Anthropic words it, or None if it says something else.

    Claude Code reads the numbers and asks again for as many tokens as there is room for. It repeats any other 400 six
    times, each time with other features left out.
    """
    counts = _counts_in(message)
    if counts is None:
        return None
    prompt, answer, limit = counts
    return (
        f"input length and `max_tokens` exceed context limit: {prompt} + {answer} > {limit}, decrease input length or "
        "`max_tokens` and try again"
    )


def _counts_in(message: str) -> tuple[int, int, int] | None:
    """Return the tokens of the prompt, those of the answer and the limit of both, or None without all three."""
    found = next(filter(None, (pattern.search(message) for pattern in _SUMS)), None)
    return None if found is None else (int(found["prompt"]), int(found["answer"]), int(found["limit"]))


def _limit_in(message: str) -> int | None:
    found = _LIMIT.search(message)
    return None if found is None else _to_int(found["after"] or found["greater"])


def _to_int(digits: str) -> int:
    return int(digits.replace(",", ""))
