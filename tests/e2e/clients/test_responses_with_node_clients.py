"""The Responses API with the official Node client and the AI SDK, with the results of `node/responses.mjs`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.tools import NODE_DIR, require_node

Results = dict[str, Any]


@pytest.fixture(scope="module")
def results(running_mock: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Results:
    node = require_node()
    path: Path = tmp_path_factory.mktemp("responses") / "models.json"
    cut = {"name": "cut", "kind": "openai", "base_url": running_mock.base_url, "upstream_model": "fault-cut"}
    path.write_text(json.dumps([{"name": "echo", "kind": "echo"}, cut]))
    with LiveServer({"MODELS_FILE": str(path)}) as server:
        command = [node, NODE_DIR / "responses.mjs", server.url]
        done = subprocess.run(command, capture_output=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr.decode()
    results: Results = json.loads(done.stdout)
    return results


def test_the_official_client(results: Results) -> None:
    answer = results["create"]
    assert (answer["output_text"], answer["status"], answer["usage"]["total_tokens"]) == ("Hello there", "completed", 4)
    assert results["stream"]["text"] == "Hello there"
    assert results["stream"]["types"][-1] == "response.completed"
    (call,) = results["call"]
    assert (call["name"], call["parsed_arguments"]) == ("now", {})


def test_the_official_client_raises_for_a_truncated_stream(results: Results) -> None:
    assert results["cut"]["error"] == "APIError"
    assert "response.completed" not in results["cut"]["types"]


def test_the_ai_sdk_gets_a_text(results: Results) -> None:
    answer = results["aiText"]
    assert (answer["text"], answer["finishReason"], answer["usage"]["totalTokens"]) == ("one two", "stop", 4)


@pytest.mark.parametrize("name", ["aiStream", "aiAzure"])
def test_the_ai_sdk_gets_a_stream(results: Results, name: str) -> None:
    answer = results[name]
    assert (answer["deltas"], answer["errors"], answer["finishReason"]) == (["one", " two", " three"], [], "stop")
    assert answer["usage"]["totalTokens"] == 6


def test_the_ai_sdk_reports_a_truncated_stream(results: Results) -> None:
    assert results["aiCut"]["finishReason"] == "error"
    assert results["aiCut"]["errors"]


def test_the_ai_sdk_gets_an_object(results: Results) -> None:
    assert isinstance(results["aiObject"]["city"], str)


def test_two_turns_of_the_ai_sdk_without_storage(results: Results) -> None:
    assert results["aiTwoTurns"] == "again"


def test_the_official_client_uses_stored_objects(results: Results) -> None:
    state = results["state"]
    assert (state["previous"], state["stored"]) == (True, "two")
    assert state["items"] == ["assistant", "user"]
    assert (state["status"], state["queued"]["status"]) == ("queued", "completed")
    assert state["queued"]["output_text"] == "four"


def test_two_turns_of_the_ai_sdk_with_references_to_stored_items(results: Results) -> None:
    turn = results["aiStoredTurns"]
    assert turn["text"] == "again"
    assert "item_reference" in [item.get("type") for item in turn["input"]]


def test_the_ai_sdk_runs_a_tool(results: Results) -> None:
    assert results["aiTools"] == {"text": "It is sunny.", "calls": ["get_weather"], "steps": 2}
