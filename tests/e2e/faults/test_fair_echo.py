"""Tests that a large call of the echo model does not block the other calls of the same worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from typing import Any, Final

import pytest
import requests

from tests.support.live_server import LiveServer

WINDOW = "word " * 127_000
"""A text of nearly the maximum length."""

MIN_HEALTH_CHECKS: Final = 20
"""Health checks, one after another, that must be answered during a large call.

A worker that never yields answers at most 4 of them, and today's about 90 to 650, in proportion to the work.
"""

LARGE_CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "streamed choices": (
        "chat/completions",
        {"messages": [{"role": "user", "content": WINDOW}], "n": 128, "stream": True},
    ),
    "complete choices": (
        "chat/completions",
        {"messages": [{"role": "user", "content": WINDOW}], "n": 128, "stop": "x"},
    ),
    "one endless word": (
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


def read_status(connection: HTTPConnection) -> int:
    response = connection.getresponse()
    response.read()
    return response.status


@pytest.mark.parametrize("name", LARGE_CALLS)
def test_health_checks_are_answered_throughout_a_large_call(echo: LiveServer, name: str) -> None:
    path, body = LARGE_CALLS[name]
    answered = 0
    with (
        ThreadPoolExecutor(1) as threads,
        requests.Session() as other,
        closing(HTTPConnection("127.0.0.1", echo.port, timeout=50)) as connection,
    ):
        connection.request("POST", f"/v1/{path}", json.dumps(body), {"content-type": "application/json"})
        large = threads.submit(read_status, connection)
        while not large.done():
            assert other.get(f"{echo.url}/healthz", timeout=50).status_code == 200
            answered += 1
    assert large.result() == 200
    assert answered >= MIN_HEALTH_CHECKS
