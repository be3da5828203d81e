"""Clients of the Messages API in front of an upstream that speaks it, too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.messages_events import parse_events, read_message
from tests.support.mock_upstream import MockUpstream

HEADERS = {"anthropic-version": "2026-10-21", "anthropic-beta": "a,b", "x-api-key": "any"}
BILLING = {"type": "text", "text": "x-anthropic-billing-header: cc_version=1;"}
CALL: dict[str, Any] = {"max_tokens": 64, "messages": [{"role": "user", "content": "one two three"}]}
TOOLS: Any = [{"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]
HEALTHY = "claude"
FAULTS = ("fault-cut", "fault-cut-mid-event", "fault-error-in-stream:code=529", "fault-no-finish", "fault-reset")
ROWS = (
    "fault-no-done", "fault-no-end", "fault-status:code=529", "fault-status:code=401", "fault-context-length",
    "fault-html-error:code=200", "fault-bad-json", "fault-bad-json-event", "fault-comments",
    "fault-error-in-stream:after=1,code=529", *FAULTS,
)  # fmt: skip


@pytest.fixture(scope="module")
def mock() -> Iterator[MockUpstream]:
    with MockUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def server(mock: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Yield a server with a row for each fault, and routes from failing rows to the healthy one."""
    common = {"kind": "anthropic", "base_url": mock.url, "api_key_env": "UPSTREAM_KEY"}
    healthy = {**common, "name": HEALTHY, "upstream_model": "mock-model", "headers": {"anthropic-beta": "a,b"}}
    rows = [{**common, "name": name, "upstream_model": name} for name in ROWS]
    routes = [
        {"name": f"route-{name}", "targets": [name], "fallbacks": [HEALTHY]}
        for name in ("fault-status:code=529", "fault-error-in-stream:after=1,code=529")
    ]
    dropping = {"drop": ["seed"]}
    profiled = {**common, "name": "profiled", "upstream_model": "mock-model", "profile": dropping}
    file = tmp_path_factory.mktemp("rows") / "models.json"
    file.write_text(json.dumps([healthy, profiled, *rows, *routes]))
    with LiveServer({"MODELS_FILE": str(file), "UPSTREAM_KEY": "sk-secret-of-the-server"}) as server:
        yield server


def post(server: LiveServer, model: str, path: str = "messages", **fields: Any) -> requests.Response:
    body = {"model": model, **CALL, **fields}
    return requests.post(f"{server.base_url}/{path}", json=body, headers=HEADERS, timeout=20)


@pytest.mark.parametrize("stream", [False, True])
def test_bytes_pass_unchanged_but_for_the_model(server: LiveServer, mock: MockUpstream, stream: bool) -> None:
    fields = {"system": [BILLING], "stream": stream, "top_k": 5}
    direct = requests.post(
        f"{mock.base_url}/messages", json={"model": "mock-model", **CALL, **fields}, headers=HEADERS, timeout=10
    )
    mock.reset()
    reply = post(server, HEALTHY, **fields)
    assert reply.status_code == 200
    assert reply.content == direct.content
    (sent,) = mock.requests()
    assert json.loads(sent["body"]) == {"model": "mock-model", **CALL, **fields}
    assert sent["headers"]["anthropic-version"] == "2026-10-21"
    assert sent["headers"]["anthropic-beta"] == "a,b"
    assert sent["headers"]["x-api-key"] == "sk-secret-of-the-server"
    assert reply.headers["anthropic-ratelimit-requests-remaining"] == "49"
    assert reply.headers["request-id"].startswith("req_")
    assert not {"set-cookie", "anthropic-organization-id"} & {name.lower() for name in reply.headers}


def test_tokens_are_counted_by_the_upstream(server: LiveServer, mock: MockUpstream) -> None:
    mock.reset()
    reply = requests.post(
        f"{server.base_url}/messages/count_tokens",
        json={"model": HEALTHY, "messages": CALL["messages"]},
        headers=HEADERS,
        timeout=10,
    )
    assert reply.json() == {"input_tokens": 7}
    (sent,) = mock.requests()
    assert json.loads(sent["body"]) == {"model": "mock-model", "messages": CALL["messages"]}


@pytest.mark.parametrize("name", FAULTS)
def test_a_stream_that_breaks_never_looks_complete(server: LiveServer, name: str) -> None:
    reply = post(server, name, stream=True)
    if reply.status_code == 502:  # everything arrived at once, so that the error could have a status
        assert reply.json()["error"]["type"] == "api_error"
        return
    events = parse_events(reply.content)
    assert reply.status_code == 200
    assert [event["type"] for event in events].count("error") == 1
    assert events[-1]["type"] == "error"
    assert "message_stop" not in [event["type"] for event in events]


def test_a_complete_message_without_a_stop_reason_is_none(server: LiveServer) -> None:
    """Claude Code ends the turn without a warning if it gets such a message."""
    reply = post(server, "fault-no-finish")
    assert (reply.status_code, reply.json()["error"]["type"]) == (502, "api_error")
    assert "stop_reason" in reply.json()["error"]["message"]


def test_the_last_name_of_an_event_counts(server: LiveServer) -> None:
    """So says the specification of server-sent events, and so do both official clients."""
    client = anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0)
    with client.messages.stream(model="fault-comments", **CALL) as stream:
        message = stream.get_final_message()
    assert message.stop_reason == "end_turn"


def test_a_broken_event_without_content_is_left_out(server: LiveServer) -> None:
    reply = post(server, "fault-bad-json-event", stream=True)
    assert read_message(parse_events(reply.content))["content"][0]["text"] == "You said: one two three"


@pytest.mark.parametrize("name", ["fault-no-done", "fault-no-end"])
def test_a_missing_end_mark_is_added(server: LiveServer, name: str) -> None:
    reply = post(server, name, stream=True)
    assert read_message(parse_events(reply.content))["stop_reason"] == "end_turn"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("name", "status", "type_", "message"),
    [
        ("fault-status:code=529", 529, "overloaded_error", "Overloaded"),
        ("fault-status:code=401", 502, "api_error", "refused this server's credential"),
        ("fault-context-length", 400, "invalid_request_error", "prompt is too long: 9001 tokens > 8192 maximum"),
        ("fault-html-error:code=200", 502, "api_error", "HTML"),
        ("fault-bad-json", 502, "api_error", ""),
    ],
)
def test_failures_before_the_answer_have_a_status(
    server: LiveServer, name: str, status: int, type_: str, message: str, stream: bool
) -> None:
    reply = post(server, name, stream=stream)
    assert (reply.status_code, reply.json()["error"]["type"]) == (status, type_)
    assert message in reply.json()["error"]["message"] or (stream and message == "HTML")
    assert "sk-secret" not in reply.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["fault-status:code=529", "fault-error-in-stream:after=1,code=529"])
def test_another_target_answers_for_an_overloaded_one(server: LiveServer, name: str, stream: bool) -> None:
    reply = post(server, f"route-{name}", stream=stream)
    assert reply.status_code == 200
    message = read_message(parse_events(reply.content)) if stream else reply.json()
    assert message["content"][0]["text"] == "You said: one two three"


def test_a_row_with_a_profile_is_translated(server: LiveServer, mock: MockUpstream) -> None:
    mock.reset()
    reply = post(server, "profiled", system=[BILLING, {"type": "text", "text": "be brief"}])
    assert reply.json()["content"] == [{"type": "text", "text": "You said: one two three"}]
    (sent,) = mock.requests()
    assert json.loads(sent["body"])["system"] == [{"type": "text", "text": "be brief"}]


def test_the_official_client_keeps_thinking_over_two_turns(server: LiveServer) -> None:
    with anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0) as client:
        common: Any = {"model": HEALTHY, "max_tokens": 4096, "tools": TOOLS,
                       "thinking": {"type": "enabled", "budget_tokens": 1024}}  # fmt: skip
        messages: Any = [{"role": "user", "content": "the weather?"}]
        with client.messages.stream(messages=messages, **common) as stream:
            first = stream.get_final_message()
        assert [block.type for block in first.content] == ["thinking", "tool_use"]
        result = {"type": "tool_result", "tool_use_id": first.content[1].id, "content": "warm"}  # type: ignore[union-attr]
        messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
        with client.messages.stream(messages=messages, **common) as stream:
            second = stream.get_final_message()
        assert second.stop_reason == "end_turn"
