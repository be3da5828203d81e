"""One call of the echo model, however large, does not stop the others: a worker is one process for all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.support.live_server import LiveServer

WINDOW = "word " * 127_000
"""Nearly all that the model takes."""

LARGE_CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "streamed choices": (
        "chat/completions",
        {"messages": [{"role": "user", "content": WINDOW}], "n": 128, "stream": True},
    ),
    "whole choices": ("chat/completions", {"messages": [{"role": "user", "content": WINDOW}], "n": 128, "stop": "x"}),
    "one word without an end": (
        "chat/completions",
        {"messages": [{"role": "user", "content": "a1" * 700_000}], "n": 128},
    ),
    "completions": ("completions", {"prompt": [WINDOW[:60_000]] * 8, "n": 8, "max_tokens": 1024, "stream": True}),
    "embeddings": (
        "embeddings",
        {"input": [" ".join(map(str, range(10**9, 10**9 + 8000)))] * 30, "encoding_format": "base64"},
    ),
}


@pytest.fixture(scope="module")
def echo() -> Iterator[LiveServer]:
    with LiveServer() as live:
        yield live


@pytest.mark.parametrize("name", LARGE_CALLS)
def test_others_are_answered_while_a_large_call_goes_on(echo: LiveServer, name: str) -> None:
    path, body = LARGE_CALLS[name]
    waits: list[float] = []
    with ThreadPoolExecutor(1) as threads, requests.Session() as other:
        started = time.monotonic()
        large = threads.submit(requests.post, f"{echo.base_url}/{path}", json=body, timeout=50)
        while not large.done():
            asked = time.monotonic()
            assert other.get(f"{echo.url}/healthz", timeout=50).status_code == 200
            waits.append(time.monotonic() - asked)
            time.sleep(0.005)
        took = time.monotonic() - started
        assert large.result().status_code == 200
    # Measured against the large call itself, so that it holds on a slow machine too.
    assert len(waits) >= 5
    assert max(waits) < took / 2
