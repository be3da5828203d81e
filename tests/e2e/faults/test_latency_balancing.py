"""`strategy: least_latency` in front of two live upstreams, of which one is slower than the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream

CALLS = 30
WORKERS = 2
SLOW, FAST = "fault-slow-first:delay=0.4", "mock-model"


def call_in_turn(server: LiveServer, *, stream: bool) -> list[str]:
    """Send calls one after the other, and return the upstream of each."""
    body = {"model": "quick", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    replies = [requests.post(f"{server.base_url}/chat/completions", json=body, timeout=30) for _ in range(CALLS)]
    assert {reply.status_code for reply in replies} == {200}
    return [reply.headers["x-openai-compat-upstream"] for reply in replies]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "complete"])
def test_the_faster_of_two_upstreams_gets_the_calls(tmp_path: Path, *, stream: bool) -> None:
    """Each worker calls the slow upstream at most once, because workers share measured latencies."""
    with MockUpstream() as first, MockUpstream() as second:
        upstreams = {"slow": (first, SLOW), "fast": (second, FAST)}
        entries = [
            {"name": name, "kind": "openai", "base_url": upstream.base_url, "upstream_model": model}
            for name, (upstream, model) in upstreams.items()
        ]
        file = tmp_path / "models.json"
        file.write_text(
            json.dumps([*entries, {"name": "quick", "targets": list(upstreams), "strategy": "least_latency"}])
        )
        with LiveServer({"MODELS_FILE": str(file)}, workers=WORKERS) as server:
            upstreams_called = call_in_turn(server, stream=stream)
        received = {name: len(upstream.requests()) for name, (upstream, _) in upstreams.items()}
    assert 1 <= upstreams_called.count("slow") <= WORKERS, upstreams_called
    assert received == {name: upstreams_called.count(name) for name in upstreams}
