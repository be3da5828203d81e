"""The Messages API with Anthropic's Node client and the AI SDK, with the results of `node/messages.mjs`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_server import LiveServer
from tests.support.local_models import LOADER
from tests.support.mock_upstream import MockUpstream
from tests.support.tools import NODE_DIR, require_node

KEY = "key-of-the-caller"
MODELS = ["echo", "row", "local", "claude"]
"""The echo model, the mock upstream by OpenAI's protocol and by Anthropic's, and a model of the engine's process."""
Results = dict[str, Any]


@pytest.fixture(scope="module")
def server(running_mock: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    path: Path = tmp_path_factory.mktemp("messages") / "models.json"
    row = {"kind": "openai", "base_url": running_mock.base_url}
    models = [
        {"name": "echo", "kind": "echo"},
        {"name": "row", **row, "upstream_model": "mock-model"},
        {"name": "local", "kind": "huggingface", "hf_repo": "mb=1"},
        {"name": "claude", "kind": "anthropic", "base_url": running_mock.base_url, "upstream_model": "mock-model"},
        {"name": "cut", **row, "upstream_model": "fault-cut"},
        {"name": "limited", **row, "upstream_model": "fault-status:code=429"},
    ]
    path.write_text(json.dumps(models))
    with LiveServer({"MODELS_FILE": str(path), "API_KEYS": KEY, "LOCAL_MODEL_LOADER": LOADER}) as server:
        yield server


@pytest.fixture(scope="module", params=MODELS)
def results(request: pytest.FixtureRequest, server: LiveServer) -> Results:
    command = [require_node(), NODE_DIR / "messages.mjs", server.url, KEY, request.param]
    done = subprocess.run(command, capture_output=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found: Results = json.loads(done.stdout)
    return {**found, "model": request.param}


def test_a_message(results: Results) -> None:
    message = results["create"]
    assert "one two three" in message["text"]
    shown = "mock-model" if results["model"] == "claude" else results["model"]  # its answers are passed through
    assert (message["model"], message["stop_reason"]) == (shown, "end_turn")


def test_a_stream(results: Results) -> None:
    stream = results["stream"]
    assert len(stream["deltas"]) > 2
    assert "".join(stream["deltas"]) == stream["text"]
    assert stream["stopReason"] == "end_turn"
    assert stream["usage"]["output_tokens"] == results["create"]["usage"]["output_tokens"]


def test_two_turns_with_a_tool(results: Results) -> None:
    turn = results["tool"]
    assert (turn["name"], turn["stopReason"], turn["finalReason"]) == ("get_weather", "tool_use", "end_turn")
    assert isinstance(turn["input"]["city"], str)


def test_the_clients_tool_runner(results: Results) -> None:
    assert results["runner"] == {"cities": 1, "finalReason": "end_turn"}


def test_an_image_and_a_token_count(results: Results) -> None:
    assert "one two" in results["image"]
    assert results["count"]["input_tokens"] > 0


def test_models_are_listed_page_by_page(results: Results) -> None:
    assert results["models"]["names"] == ["echo", "row", "local", "claude", "cut", "limited"]
    assert results["models"]["one"]["id"] == results["model"]


@pytest.mark.parametrize(
    ("name", "expected", "status"),
    [
        ("unknown", "NotFoundError", 404),
        ("unlisted", "NotFoundError", 404),
        ("limited", "RateLimitError", 429),
        ("refused", "AuthenticationError", 401),
    ],
)
def test_errors_are_of_the_right_class(results: Results, name: str, expected: str, status: int) -> None:
    error = results[name]
    assert (error["thrown"], error["status"], error["hasRequestID"]) == (expected, status, True)


def test_a_truncated_stream_throws(results: Results) -> None:
    assert results["cut"]["thrown"] == "APIError"
    assert results["cutType"]["body"]["error"]["type"] == "api_error"
    assert results["aiCut"]["errors"]
    assert results["aiCut"].get("finishReason") in (None, "error")


def test_the_ai_sdk_gets_a_text_and_a_stream(results: Results) -> None:
    assert ("one two" in results["aiText"]["text"], results["aiText"]["finishReason"]) == (True, "stop")
    stream = results["aiStream"]
    assert "one two three" in "".join(stream["deltas"])
    assert (stream["errors"], stream["finishReason"]) == ([], "stop")
    assert stream["usage"]["outputTokens"] > 0


def test_the_ai_sdk_runs_a_tool(results: Results) -> None:
    assert results["aiTools"] == {"calls": ["get_weather"], "steps": 2}


def test_the_ai_sdk_gets_the_error_of_an_unknown_model(results: Results) -> None:
    assert results["aiUnknown"]["thrown"] == "APICallError"
    assert "nope" in results["aiUnknown"]["message"]


def test_the_ai_sdk_gets_an_object(results: Results) -> None:
    assert isinstance(results["aiObject"]["city"], str)
