"""A stop and a reload let running streams finish; docs/deployment.md counts on it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.fakes.live_server import LiveServer

WORDS = 20
QUESTION = {"stream": True, "messages": [{"role": "user", "content": " ".join(["word"] * WORDS)}]}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    """Its model takes a second for an answer."""
    models = tmp_path / "models.json"
    models.write_text(json.dumps([{"name": "slow", "kind": "echo", "delay": 0.05}]))
    with LiveServer({"MODEL_REGISTRY_PATH": str(models)}) as server:
        yield server


def open_stream(server: LiveServer) -> Iterator[str]:
    """The lines of a stream that has begun."""
    reply = requests.post(f"{server.base_url}/chat/completions", json=QUESTION, stream=True, timeout=10)
    lines = reply.iter_lines(decode_unicode=True)
    assert '"role":"assistant"' in next(lines)
    return lines


def assert_is_whole(lines: Iterator[str]) -> None:
    events = [line for line in lines if line]
    assert sum("word" in event for event in events) == WORDS
    assert events[-1] == "data: [DONE]"


def test_a_stop_waits_for_running_streams_and_not_for_longer(server: LiveServer) -> None:
    lines = open_stream(server)
    server.process.send_signal(signal.SIGTERM)
    assert_is_whole(lines)
    stopped_at = time.monotonic()
    assert server.process.wait(10) == 0
    assert time.monotonic() - stopped_at < 5


def test_a_reload_reads_the_models_anew_cuts_no_stream_and_refuses_no_request(
    server: LiveServer, tmp_path: Path
) -> None:
    lines = open_stream(server)
    (tmp_path / "models.json").write_text(json.dumps([{"name": "new", "kind": "echo"}]))
    server.process.send_signal(signal.SIGHUP)
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        assert requests.get(f"{server.url}/healthz", timeout=5).status_code == 200
        time.sleep(0.02)
    assert requests.get(f"{server.base_url}/models", timeout=5).json()["data"][0]["id"] == "new"
    assert_is_whole(lines)


def test_a_reload_of_a_wrong_models_file_changes_nothing_and_says_why(server: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "models.json").write_text(json.dumps([{"name": "new", "kind": "ecko"}]))
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 10
    while "unknown kind 'ecko'" not in server.log():
        assert time.monotonic() < deadline, server.log()
    assert requests.get(f"{server.base_url}/models", timeout=5).json()["data"][0]["id"] == "slow"


def test_what_still_runs_at_the_end_of_the_time_is_cut_and_does_not_look_whole(tmp_path: Path) -> None:
    models = tmp_path / "models.json"
    models.write_text(json.dumps([{"name": "slow", "kind": "echo", "delay": 0.5}]))
    with LiveServer({"MODEL_REGISTRY_PATH": str(models), "GRACEFUL_TIMEOUT": "1"}) as server:
        lines = open_stream(server)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(lines)
        server.process.wait(10)
