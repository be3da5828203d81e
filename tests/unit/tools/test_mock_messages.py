"""The mock upstream as a server of Anthropic's Messages API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.mock_upstream import MockUpstream
from tests.unit.tools.test_mock_upstream import exchange

TOOLS = [{"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]
HELLO = [{"role": "user", "content": "hello there"}]
TOO_LONG = "prompt is too long: 9001 tokens > 8192 maximum"
THINKING = {"type": "enabled", "budget_tokens": 1024}


@pytest.fixture(scope="module")
def mock() -> Iterator[MockUpstream]:
    with MockUpstream("--api-key", "secret") as upstream:
        yield upstream


def ask(mock: MockUpstream, path: str = "/v1/messages", **fields: Any) -> tuple[int, str]:
    body = json.dumps({"model": "mock-model", "max_tokens": 2048, "messages": HELLO, **fields})
    headers = {"x_api_key": "secret", "anthropic_version": "2023-06-01"}
    response, content = exchange(mock, "POST", path, body, **headers)
    return response.status, content.decode()


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in text.split("\n") if line.startswith("data: ")]


def test_stream_names_each_event_and_keeps_their_order(mock: MockUpstream) -> None:
    status, text = ask(mock, stream=True)
    names = [line.removeprefix("event: ") for line in text.split("\n") if line.startswith("event: ")]
    assert status == 200
    assert names == [event["type"] for event in events_of(text)]
    assert names[:3] == ["message_start", "ping", "content_block_start"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    deltas = [event["delta"] for event in events_of(text) if event["type"] == "content_block_delta"]
    assert "".join(delta["text"] for delta in deltas) == "You said: hello there"


def test_tool_loop_with_thinking_needs_its_signature(mock: MockUpstream) -> None:
    first = json.loads(ask(mock, tools=TOOLS, thinking=THINKING)[1])
    assert [block["type"] for block in first["content"]] == ["thinking", "tool_use"]
    assert first["stop_reason"] == "tool_use"
    result = {"type": "tool_result", "tool_use_id": first["content"][1]["id"], "content": "warm"}

    def continue_with(content: Any) -> tuple[int, str]:
        turns = [*HELLO, {"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
        return ask(mock, tools=TOOLS, thinking=THINKING, messages=turns)

    assert continue_with(first["content"])[0] == 200
    forged = [{**first["content"][0], "thinking": "forged"}, first["content"][1]]
    assert "Invalid `signature`" in continue_with(forged)[1]
    assert "Expected `thinking`" in continue_with(first["content"][1:])[1]


@pytest.mark.parametrize(
    ("fields", "status", "type_", "message"),
    [
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens: Field required"),
        ({"temperature": 1.5}, 400, "invalid_request_error", "temperature: range: 0..1"),
        ({"logprobs": True}, 400, "invalid_request_error", "logprobs: Extra inputs are not permitted"),
        ({"model": "fault-status:code=529"}, 529, "overloaded_error", "Overloaded"),
        ({"model": "fault-context-length"}, 400, "invalid_request_error", TOO_LONG),
    ],
)  # fmt: skip
def test_errors_have_the_envelope_of_anthropic(
    mock: MockUpstream, fields: dict[str, Any], status: int, type_: str, message: str
) -> None:
    found, text = ask(mock, **fields)
    assert found == status
    assert json.loads(text) == {
        "type": "error",
        "error": {"type": type_, "message": message},
        "request_id": "req_mock",
    }


def test_error_in_the_middle_of_a_stream_is_an_event_of_anthropic(mock: MockUpstream) -> None:
    _, text = ask(mock, model="fault-error-in-stream:code=529", stream=True)
    assert events_of(text)[-1]["error"] == {"type": "overloaded_error", "message": "Overloaded"}


def test_marked_blocks_are_written_to_the_cache_and_then_read(mock: MockUpstream) -> None:
    system = [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}]
    first = json.loads(ask(mock, system=system)[1])["usage"]
    turns = [*HELLO, {"role": "assistant", "content": "yes"}, *HELLO]
    second = json.loads(ask(mock, system=system, messages=turns)[1])["usage"]
    assert first["cache_creation_input_tokens"] == second["cache_read_input_tokens"] == 6
    assert first["cache_read_input_tokens"] == second["cache_creation_input_tokens"] == 0


def test_tokens_are_counted_and_models_listed(mock: MockUpstream) -> None:
    assert json.loads(ask(mock, "/v1/messages/count_tokens")[1]) == {"input_tokens": 6}
    response, content = exchange(mock, "GET", "/v1/models", x_api_key="secret", anthropic_version="2023-06-01")
    assert response.status == 200
    assert json.loads(content)["data"][0]["type"] == "model"
    assert exchange(mock, "GET", "/v1/models", x_api_key="wrong", anthropic_version="2023-06-01")[0].status == 401
