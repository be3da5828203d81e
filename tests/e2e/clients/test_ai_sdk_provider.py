"""The AI SDK's provider `@ai-sdk/openai-compatible`, with the results of `node/provider.mjs`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.tools import NODE_DIR, require_node

PROMPT = "one two three four five six"
Results = dict[str, Any]


@pytest.fixture(scope="module")
def results(running_mock: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Results:
    node = require_node()
    path: Path = tmp_path_factory.mktemp("provider") / "models.json"
    base_url = running_mock.base_url
    entries: list[dict[str, str]] = [
        {"name": "echo", "kind": "echo"},
        {"name": "cut", "kind": "openai", "base_url": base_url, "upstream_model": "fault-cut"},
        {"name": "stalls", "kind": "openai", "base_url": base_url, "upstream_model": "fault-stall"},
    ]
    path.write_text(json.dumps(entries))
    with LiveServer({"MODELS_FILE": str(path)}) as server:
        command = [node, NODE_DIR / "provider.mjs", server.url, running_mock.url]
        done = subprocess.run(command, capture_output=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr.decode()
    results: Results = json.loads(done.stdout)
    return results


def test_a_complete_answer(results: Results) -> None:
    answer = results["text"]
    assert (answer["text"], answer["finishReason"], answer["model"]) == (PROMPT, "stop", "echo")
    assert (answer["usage"]["inputTokens"], answer["usage"]["outputTokens"]) == (6, 6)


def test_a_streamed_answer_with_its_usage(results: Results) -> None:
    answer = results["stream"]
    assert len(answer["deltas"]) == 6
    assert "".join(answer["deltas"]) == PROMPT
    assert (answer["finishReason"], answer["errors"]) == ("stop", [])
    assert answer["usage"]["totalTokens"] == 12


def test_a_tool_call(results: Results) -> None:
    (call,) = results["tool"]
    assert call["toolName"] == "weather"
    assert isinstance(call["input"]["city"], str)


def test_a_structured_answer(results: Results) -> None:
    assert isinstance(results["object"]["city"], str)


def test_embeddings(results: Results) -> None:
    first, second = results["embeddings"]["lengths"]
    assert first == second > 0
    assert results["embeddings"]["usage"]["tokens"] == 2


def test_an_error_has_its_message(results: Results) -> None:
    assert "no-such-model" in results["refused"]["message"]


def test_a_truncated_answer_is_an_error(results: Results) -> None:
    answer = results["cut"]
    assert answer["deltas"]
    assert answer["errors"]
    assert answer.get("finishReason") != "stop"


def test_a_stopped_answer_aborts_the_upstream_request(results: Results) -> None:
    assert results["stopped"] == "the upstream request was aborted"


def test_the_sdk_parses_the_events_of_ask(results: Results) -> None:
    *deltas, last = results["events"]
    assert "".join(delta["content"] for delta in deltas) == PROMPT
    assert last == {"role": "assistant", "content": "", "finish_reason": "stop"}
