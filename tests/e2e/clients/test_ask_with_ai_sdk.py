"""The streams of `/ask`, read by the packages of the Vercel AI SDK in `node/ask.mjs`."""

from __future__ import annotations

import json
import subprocess
from itertools import pairwise
from typing import Any

import pytest

from openai_compat.core.types import ChatDelta, ToolCallDelta
from openai_compat.web.routes.ask.encoders import UIMessageEncoder, encode_answer
from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.tools import NODE_DIR, require_node

QUESTION = "one two three four five six"

# All kinds of parts of the protocol in one answer.
RICH = [
    ChatDelta(reasoning="Hm."),
    ChatDelta("It is "),
    ChatDelta("noon."),
    ChatDelta(tool_calls=[ToolCallDelta(0, '{"in":', id="call_1", name="clock")]),
    ChatDelta(tool_calls=[ToolCallDelta(0, ' "Rome"}')]),
    ChatDelta(tool_calls=[ToolCallDelta(1, "{", id="call_2", name="broken")]),
    ChatDelta(finish_reason="tool_calls"),
]

Results = dict[str, Any]


@pytest.fixture(scope="module")
def results(running_mock: MockUpstream) -> Results:
    """Run the script once, and return the results of its scenarios."""
    node = require_node()
    recorded = b"".join(
        block for block in encode_answer(UIMessageEncoder("msg_1"), iter(RICH), 0) if isinstance(block, bytes)
    )
    settings = {"OPENAI_BASE_URL": running_mock.base_url, "DEFAULT_MODEL": "mock-model"}
    with LiveServer(settings) as server:
        command = [node, NODE_DIR / "ask.mjs", server.url, running_mock.url]
        done = subprocess.run(command, input=recorded, capture_output=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr.decode()
    results: Results = json.loads(done.stdout)
    return results


def texts_of(messages: list[Any]) -> list[str]:
    return ["".join(part.get("text", "") for part in message["parts"]) for message in messages]


def test_the_newest_version_holds_a_conversation(results: Results) -> None:
    page = results["newest"]
    assert (page["status"], page.get("error")) == ("ready", None)
    assert page["finished"] == [{"finishReason": "stop", "isError": False}] * 2
    assert [message["role"] for message in page["messages"]] == ["user", "assistant"] * 2
    question, answer, second_question, second_answer = texts_of(page["messages"])
    assert question in answer
    assert second_question in second_answer
    assert len({message["id"] for message in page["messages"]}) == 4


def test_the_newest_version_shows_partial_answers(results: Results) -> None:
    texts = [text for text in results["newest, watched"]["texts"] if text]
    assert len(texts) > 5
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert QUESTION in texts[-1]


def test_version_5_which_rejects_unknown_keys_accepts_the_stream(results: Results) -> None:
    page = results["version 5"]
    assert (page["status"], page.get("error")) == ("ready", None)
    assert QUESTION in texts_of(page["messages"])[-1]


@pytest.mark.parametrize("version", ["newest", "version 5"])
def test_the_text_transport_reads_the_text_format(results: Results, version: str) -> None:
    page = results[f"{version}, text"]
    assert (page["status"], page.get("error")) == ("ready", None)
    assert QUESTION in texts_of(page["messages"])[-1]
    assert "data:" not in texts_of(page["messages"])[-1]


def test_version_4_gets_text_by_default(results: Results) -> None:
    updates = results["version 4, text"]
    assert QUESTION in updates[-1]
    assert "data:" not in updates[-1]


@pytest.mark.parametrize("version", ["newest", "version 5"])
def test_reasoning_and_tool_calls_arrive(results: Results, version: str) -> None:
    parts = {part["type"]: part for part in results[f"{version}, replayed"]["parts"]}
    assert (parts["reasoning"]["text"], parts["reasoning"]["state"]) == ("Hm.", "done")
    assert (parts["text"]["text"], parts["text"]["state"]) == ("It is noon.", "done")
    clock, broken = parts["tool-clock"], parts["tool-broken"]
    assert (clock["state"], clock["toolCallId"], clock["input"]) == ("input-available", "call_1", {"in": "Rome"})
    assert broken["state"] == "output-error"


def test_a_message_with_a_picture_is_accepted(results: Results) -> None:
    page = results["a picture"]
    assert (page["status"], page.get("error")) == ("ready", None)
    assert "What is this?" in texts_of(page["messages"])[-1]


def test_a_truncated_answer_is_an_error_with_a_message_for_the_user(results: Results) -> None:
    page = results["truncated"]
    assert page["status"] == "error"
    assert page["error"] == "The answer broke off before it was complete. Please try again."
    assert page["finished"][-1]["isError"] is True
    assert texts_of(page["messages"])[-1]  # the page keeps the partial text


def test_a_truncated_answer_is_an_error_in_the_text_format(results: Results) -> None:
    page = results["text, truncated"]
    assert page["status"] == "error"
    assert page["error"]


def test_an_error_before_the_first_token_has_a_readable_message(results: Results) -> None:
    page = results["refused"]
    assert page["status"] == "error"
    assert json.loads(page["error"])["content"] == "No answer can be had right now. Please try again in a moment."


def test_stopping_aborts_the_upstream_request(results: Results) -> None:
    assert results["stop"] == {"status": "ready", "isAborted": True}
