"""A long prompt beside another call's stream, with kind `llama_cpp` and with llama.cpp's own server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

from .llama_cpp import running_servers
from .measurements import chat, prompt_of

WORDS: Final = 1500
"""Words of the prompt, each of which is a token."""
STREAM_TOKENS: Final = 60


def measure_long_prompt(gguf: Path, rounds: int) -> dict[str, Any]:
    """Return the medians of the seconds that a long prompt takes and of the longest gap in the stream beside it."""
    with running_servers(gguf) as (_, ports):
        samples = {
            server: [_measure_round(port, f"{server} {number}") for number in range(rounds)]
            for server, port in ports.items()
        }
    return {
        server: {key: median(sample[key] for sample in taken) for key in taken[0]} for server, taken in samples.items()
    }


def _measure_round(port: int, start: str) -> dict[str, float]:
    """`start` makes each prompt a new one, as a prompt that begins like an earlier one is not processed again."""
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(chat, port, "smol", prompt_of(0), STREAM_TOKENS)
        first_token = chat(port, "smol", start + " word" * WORDS, 1).times[0]
        times = stream.result().times
    return {"prompt_seconds": first_token, "longest_gap_seconds": max(b - a for a, b in pairwise(times))}
