"""Calls of the past for the log of calls, so that plots and pictures have something to show."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from math import sin
from secrets import token_hex
from typing import Any

_numbers = count()
_PREFIX = token_hex(6)
MODELS = (
    # model, target, share, dollars for a million tokens in and out, milliseconds of the first token, tokens a second
    ("assistant", "gpt-4o-mini", 0.5, (0.15, 0.6), 320, 90),
    ("assistant", "llama3.2", 0.2, (0.0, 0.0), 140, 60),
    ("summaries", "claude-sonnet", 0.15, (3.0, 15.0), 800, 70),
    ("claude-sonnet", "claude-sonnet", 0.05, (3.0, 15.0), 800, 70),
    ("text-embedding", "text-embedding", 0.1, (0.02, 0.0), 45, 0),
)

FAILED = {
    "status": 503, "error": "upstream_busy", "is_failed": True, "first_token_ms": None, "duration_ms": 80,
    "output_tokens": 0, "cost_nano": 0,
}  # fmt: skip


def call_row(at_ms: int, **values: Any) -> dict[str, Any]:
    """Return the row of a call that succeeded, with `values` in the place of others."""
    return {
        "id": f"call_{_PREFIX}{next(_numbers):012x}", "at_ms": at_ms, "request_id": "req_1",
        "operation": "chat/completions", "model": "gpt", "target": "gpt", "kind": "openai", "status": 200,
        "error": None, "is_failed": False, "key_id": None, "key_name": None, "project_id": None, "is_streamed": True,
        "first_token_ms": 100, "duration_ms": 500, "input_tokens": 10, "cached_tokens": 0, "cache_write_tokens": 0,
        "output_tokens": 20, "reasoning_tokens": 0, "cost_nano": 1000, "adapted": "", "attempts": "[]", **values,
    }  # fmt: skip


def past_calls(now: float, seconds: int, number: int, key: tuple[str, str, str | None]) -> Iterator[dict[str, Any]]:
    """Yield calls of the last `seconds`, the oldest first. `key` is the id, the name and the project of a key."""
    chance = random.Random(7)
    times = sorted(chance.random() for _ in range(number))
    for share in times:
        if chance.random() > 0.65 + 0.35 * sin(share * 14):
            continue
        at_ms = round((now - seconds * (1 - share)) * 1000)
        yield _past_call(chance, at_ms, key)


def _past_call(chance: random.Random, at_ms: int, key: tuple[str, str, str | None]) -> dict[str, Any]:
    model, target, _, (price_in, price_out), first, speed = chance.choices(MODELS, [one[2] for one in MODELS])[0]
    is_failed = chance.random() < 0.03
    first_token = round(first * chance.uniform(0.7, 1.8))
    tokens_in, tokens_out = chance.randint(40, 2400), chance.randint(20, 600) if speed else 0
    duration = first_token + (round(tokens_out / speed * 1000) if speed else 0)
    values = {
        "model": model,
        "target": target,
        "operation": "chat/completions" if speed else "embeddings",
        "is_streamed": bool(speed),
        "first_token_ms": first_token,
        "duration_ms": duration,
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "cost_nano": round((tokens_in * price_in + tokens_out * price_out) * 1000),
        **dict(zip(("key_id", "key_name", "project_id"), key, strict=True)),
    }
    return call_row(at_ms, **(values | FAILED if is_failed else values))
