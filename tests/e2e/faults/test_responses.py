"""The Responses API in front of upstreams with and without the endpoint, and of broken ones."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.raw_server import RawServer, read_request, wait_for_close
from tests.support.responses_events import Event, check_events, parse_events
from tests.support.waiting import wait_until

EVENTS_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
RESPONSE = {"id": "resp_of_upstream", "object": "response", "status": "in_progress", "model": "x", "output": []}
USAGE = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}


def event(number: int, kind: str, **fields: Any) -> bytes:
    data = {"type": kind, **fields, "sequence_number": number}
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def chunk(delta: Any, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return (
        b"data: " + json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"
    )


def complete(status: str, body: Any) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + data


CREATED = event(0, "response.created", response=RESPONSE)
DELTA = event(1, "response.output_text.delta", item_id="m", output_index=0, content_index=0, delta="Hi", logprobs=[])
COMPLETED = event(2, "response.completed", response={**RESPONSE, "status": "completed", "usage": USAGE})
FAILED = event(2, "response.failed", response={**RESPONSE, "status": "failed", "error": {"code": "x", "message": "m"}})
STREAM_ERROR = event(
    1, "error", error={"type": "x", "code": "rate_limit_exceeded", "message": "Slow down.", "param": None}
)
UNKNOWN_URL = complete("404 Not Found", {"error": {"message": "Invalid URL (POST /v1/responses)", "type": "x"}})
UNKNOWN_MODEL = complete("404 Not Found", {"error": {"message": "The model 'x' does not exist", "param": "model"}})
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
HELLO = chunk({"role": "assistant", "content": "Hello"})
CHAT = HELLO + chunk({}, "stop") + b"data: [DONE]\n\n"
COMPLETION = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}  # fmt: skip

NATIVE = {
    "whole": EVENTS_HEAD + CREATED + DELTA + COMPLETED,
    "done": EVENTS_HEAD + CREATED + DELTA + COMPLETED + b"data: [DONE]\n\n",
    "cut": EVENTS_HEAD + CREATED + DELTA,
    "failed": EVENTS_HEAD + CREATED + DELTA + FAILED,
    "error": EVENTS_HEAD + CREATED + STREAM_ERROR,
    "late-error": EVENTS_HEAD
    + CREATED
    + DELTA
    + STREAM_ERROR.replace(b'"sequence_number": 1', b'"sequence_number": 2'),
    "late-secret": EVENTS_HEAD + CREATED + DELTA + STREAM_ERROR.replace(b"Slow down.", b"Wrong key sk-of-the-server"),
    "broken-delta": EVENTS_HEAD + CREATED + DELTA + DELTA.replace(b'"Hi",', b'"Hi') + COMPLETED,
    "broken-end": EVENTS_HEAD + CREATED + DELTA + COMPLETED.replace(b"}\n", b"\n"),
    "broken-start": EVENTS_HEAD + CREATED.replace(b"}", b"") + DELTA + COMPLETED,
    "broken-error": EVENTS_HEAD + CREATED + DELTA + STREAM_ERROR.replace(b"}", b""),
    "empty-end": EVENTS_HEAD + CREATED + DELTA + b"event: response.completed\ndata: {}\n\n",
    "good-end-after-error": EVENTS_HEAD
    + CREATED
    + DELTA
    + STREAM_ERROR.replace(b'"sequence_number": 1', b'"sequence_number": 2')
    + COMPLETED,
    "not-utf-8": EVENTS_HEAD + CREATED + DELTA + DELTA.replace(b"Hi", b"H\xff") + COMPLETED,
    "cut-after-comment": EVENTS_HEAD + CREATED + DELTA + b": ping\n\n",
    "cut-line-end": EVENTS_HEAD + CREATED + DELTA[:-2],
    "marked": EVENTS_HEAD + b"\xef\xbb\xbf" + CREATED.partition(b"\n")[2] + DELTA + COMPLETED,
    "heartbeat": EVENTS_HEAD + CREATED + DELTA + b"event: response.heartbeat\ndata: {}\n\n" + COMPLETED,
    "no-last-line-end": EVENTS_HEAD + CREATED + DELTA + COMPLETED[:-2],
    "carriage-returns": EVENTS_HEAD + (CREATED + DELTA + COMPLETED).replace(b"\n", b"\r"),
    "comment": EVENTS_HEAD + CREATED + b"event: ping\ndata: still there\n\n" + DELTA + COMPLETED,
    "not-finite": EVENTS_HEAD + CREATED + DELTA.replace(b"[]", b'[{"token": "Hi", "logprob": NaN}]') + COMPLETED,
    "early-failed": EVENTS_HEAD + CREATED + FAILED,
    "object": complete("200 OK", {**RESPONSE, "status": "completed", "usage": USAGE}),
    "error-object": complete("200 OK", {"error": {"message": "boom", "code": "rate_limit_exceeded"}}),
    "no-model": UNKNOWN_MODEL,
    "nothing": complete("200 OK", b"<html>"),
}
"""Answers to `/responses` by the model's name. Other models have no such endpoint."""
CHATS = {
    "cut-chat": EVENTS_HEAD + HELLO,
    "status-chat": complete("429 Too Many", {"error": {"message": "Slow down.", "code": "rate_limit_exceeded"}}),
    "no-model": UNKNOWN_MODEL,
    "thinks": EVENTS_HEAD
    + chunk({"role": "assistant", "reasoning_content": "I should "})
    + chunk({"reasoning_content": "add."})
    + chunk({"tool_calls": [CALL]})
    + chunk({}, "tool_calls")
    + b"data: [DONE]\n\n",
}


class Upstream:
    """An upstream that records the path and the model of each request."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.messages: list[Event] = []
        self.closed = threading.Event()
        self.go_on = threading.Event()
        self.server = RawServer(self._serve)

    def _serve(self, client: socket.socket) -> None:
        head, _, body = read_request(client).partition(b"\r\n\r\n")
        path, payload = head.split(b" ")[1].decode(), json.loads(body)
        model = payload["model"]
        self.calls.append((path.removeprefix("/v1/"), model))
        self.messages = payload.get("messages", [])
        if path.endswith("/responses"):
            self._respond(client, model)
        elif model == "slow-chat":
            self._send_slowly(client, HELLO, CHAT.removeprefix(HELLO))
        elif model in CHATS:
            client.sendall(CHATS[model])
        else:
            client.sendall(EVENTS_HEAD + CHAT if payload.get("stream") else complete("200 OK", COMPLETION))

    def _respond(self, client: socket.socket, model: str) -> None:
        if model == "hang":
            client.sendall(EVENTS_HEAD + CREATED + DELTA)
            wait_for_close(client)
            self.closed.set()
        elif model == "slow":
            client.sendall(EVENTS_HEAD + CREATED + DELTA)
            self.go_on.wait(20)
            client.sendall(COMPLETED)
        else:
            client.sendall(NATIVE.get(model, UNKNOWN_URL))

    def _send_slowly(self, client: socket.socket, first: bytes, rest: bytes) -> None:
        client.sendall(EVENTS_HEAD)
        self.go_on.wait(20)
        client.sendall(first)
        client.sendall(rest)


@pytest.fixture(scope="module")
def running() -> Iterator[Upstream]:
    upstream = Upstream()
    with upstream.server:
        yield upstream


@pytest.fixture
def upstream(running: Upstream) -> Upstream:
    running.calls.clear()
    running.closed.clear()
    running.go_on.clear()
    return running


@pytest.fixture(scope="module")
def server(running: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    row = {"kind": "openai", "base_url": f"{running.server.url}/v1", "api_key_env": "UPSTREAM_KEY"}
    models: list[dict[str, Any]] = [{"name": name, **row} for name in (*NATIVE, "hang", "slow", "chat-only")]
    models += [
        {"name": name, **row, "responses": "translated"} for name in ("cut-chat", "status-chat", "slow-chat", "thinks")
    ]
    models += [
        {"name": "translated", **row, "responses": "translated", "upstream_model": "whole"},
        {"name": "native-only", **row, "responses": "native", "upstream_model": "lacking"},
        {"name": "profiled", **row, "profile": {"drop": ["user"]}, "upstream_model": "whole"},
        {"name": "routed", "targets": ["error-object"], "fallbacks": ["translated"], "retries": 0},
    ]
    path: Path = tmp_path_factory.mktemp("models") / "models.json"
    path.write_text(json.dumps(models))
    settings = {"MODELS_FILE": str(path), "OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "SSE_KEEPALIVE_SECONDS": "0.1"}
    settings["UPSTREAM_KEY"] = "sk-of-the-server"
    with LiveServer(settings) as live:
        yield live


def post(server: LiveServer, model: str, **fields: Any) -> requests.Response:
    payload = {"model": model, "input": "Hi", **fields}
    return requests.post(f"{server.base_url}/responses", json=payload, timeout=20)


def stream(server: LiveServer, model: str, **fields: Any) -> list[Event]:
    response = post(server, model, stream=True, **fields)
    assert response.status_code == 200, response.text
    assert b"[DONE]" not in response.content
    return parse_events(response.content)


def types_of(events: list[Event]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


@pytest.mark.parametrize("model", ["whole", "done"])
def test_a_stream_passes_unchanged(server: LiveServer, upstream: Upstream, model: str) -> None:
    assert post(server, model, stream=True).content == CREATED + DELTA + COMPLETED
    assert upstream.calls == [("responses", model)]


def test_an_object_passes_unchanged(server: LiveServer, upstream: Upstream) -> None:
    assert post(server, "object").json() == {**RESPONSE, "status": "completed", "usage": USAGE}


def test_the_usage_of_a_stream_is_logged(server: LiveServer, upstream: Upstream) -> None:
    post(server, "whole", stream=True)
    wait_until(lambda: "completion_tokens=2" in server.log(), server.log)


def test_a_truncated_stream_ends_in_a_failure(server: LiveServer, upstream: Upstream) -> None:
    events = stream(server, "cut")
    assert types_of(events) == ["created", "output_text.delta", "error", "failed"]
    assert [event["sequence_number"] for event in events] == [0, 1, 2, 3]
    assert events[-1]["response"]["id"] == RESPONSE["id"]
    assert events[-1]["response"]["error"]["code"] == "upstream_cut"


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("broken-delta", "upstream_bad_reply"),
        ("broken-end", "upstream_bad_reply"),
        ("broken-error", "server_error"),
        ("empty-end", "upstream_bad_reply"),
        ("not-utf-8", "upstream_bad_reply"),
    ],
)
def test_a_broken_event_ends_the_stream_in_a_failure(
    server: LiveServer, upstream: Upstream, model: str, code: str
) -> None:
    events = stream(server, model)
    assert types_of(events) == ["created", "output_text.delta", "error", "failed"]
    assert [event["sequence_number"] for event in events] == [0, 1, 2, 3]
    assert events[-1]["response"]["error"]["code"] == code


def test_a_good_end_after_an_error_is_not_sent(server: LiveServer, upstream: Upstream) -> None:
    assert types_of(stream(server, "good-end-after-error"))[-2:] == ["error", "failed"]


def test_a_last_event_without_its_empty_line_counts(server: LiveServer, upstream: Upstream) -> None:
    assert post(server, "no-last-line-end", stream=True).content == CREATED + DELTA + COMPLETED


def test_lines_may_end_with_a_carriage_return(server: LiveServer, upstream: Upstream) -> None:
    content = post(server, "carriage-returns", stream=True).content
    assert content == (CREATED + DELTA + COMPLETED).replace(b"\n", b"\r")


def test_a_broken_event_that_is_none_of_the_response_is_left_out(server: LiveServer, upstream: Upstream) -> None:
    assert post(server, "comment", stream=True).content == CREATED + DELTA + COMPLETED


def test_numbers_that_json_does_not_have_are_replaced(server: LiveServer, upstream: Upstream) -> None:
    delta = stream(server, "not-finite")[1]
    assert delta["logprobs"] == [{"token": "Hi", "logprob": -9999.0}]


@pytest.mark.parametrize("model", ["cut-after-comment", "cut-line-end"])
def test_what_arrived_before_a_cut_is_sent_and_counted(server: LiveServer, upstream: Upstream, model: str) -> None:
    events = parse_events(post(server, model, stream=True).content)
    assert types_of(events) == ["created", "output_text.delta", "error", "failed"]
    assert [event["sequence_number"] for event in events] == [0, 1, 2, 3]


def test_a_byte_order_mark_and_unknown_events_are_no_fault(server: LiveServer, upstream: Upstream) -> None:
    content = post(server, "marked", stream=True).content
    assert content == CREATED.partition(b"\n")[2] + DELTA + COMPLETED
    assert post(server, "heartbeat", stream=True).content == NATIVE["heartbeat"].removeprefix(EVENTS_HEAD)


def test_a_failed_response_passes_as_it_is(server: LiveServer, upstream: Upstream) -> None:
    assert post(server, "failed", stream=True).content == CREATED + DELTA + FAILED


def test_an_error_within_the_stream_is_followed_by_a_failed_response(server: LiveServer, upstream: Upstream) -> None:
    events = stream(server, "late-error")
    assert types_of(events)[:3] == ["created", "output_text.delta", "error"]
    assert types_of(events)[-1] == "failed"
    assert events[-1]["response"]["error"] == {"code": "rate_limit_exceeded", "message": "Slow down."}


def test_credentials_are_masked_in_an_error_within_the_stream(server: LiveServer, upstream: Upstream) -> None:
    content = post(server, "late-secret", stream=True).content
    assert b"Wrong key ***" in content
    assert b"sk-of-the-server" not in content


@pytest.mark.parametrize(
    ("model", "status"), [("error", 429), ("early-failed", 502), ("broken-start", 502), ("nothing", 502)]
)
def test_a_failure_before_the_first_content_has_a_status(
    server: LiveServer, upstream: Upstream, model: str, status: int
) -> None:
    response = post(server, model, stream=True)
    assert response.status_code == status
    assert response.json()["error"]["message"]


def test_an_error_object_gets_the_status_of_its_code(server: LiveServer, upstream: Upstream) -> None:
    response = post(server, "error-object")
    assert (response.status_code, response.json()["error"]["message"]) == (429, "boom")


def test_an_upstream_without_the_endpoint_is_translated_and_asked_only_once(
    server: LiveServer, upstream: Upstream
) -> None:
    response = check_events(stream(server, "chat-only"))
    assert response["output"][0]["content"][0]["text"] == "Hello"
    assert post(server, "chat-only").json()["output"][0]["content"][0]["text"] == "Hello"
    paths = [path for path, _ in upstream.calls]
    assert paths == ["responses", "chat/completions", "chat/completions"]


def test_an_unknown_model_is_no_missing_endpoint(server: LiveServer, upstream: Upstream) -> None:
    for _ in range(2):
        response = post(server, "no-model")
        assert (response.status_code, response.json()["error"]["param"]) == (404, "model")
    assert upstream.calls == [("responses", "no-model")] * 2


def test_a_native_model_is_never_translated(server: LiveServer, upstream: Upstream) -> None:
    assert [post(server, "native-only").status_code for _ in range(2)] == [404, 404]
    assert upstream.calls == [("responses", "lacking")] * 2


@pytest.mark.parametrize("model", ["translated", "profiled"])
def test_a_translated_model_is_never_asked_for_responses(server: LiveServer, upstream: Upstream, model: str) -> None:
    check_events(stream(server, model, user="u"))
    assert upstream.calls == [("chat/completions", "whole")]


def test_a_translated_stream_that_breaks_off_ends_in_a_failure(server: LiveServer, upstream: Upstream) -> None:
    events = stream(server, "cut-chat")
    assert types_of(events)[-2:] == ["error", "failed"]
    assert "completed" not in types_of(events)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_a_translated_failure_before_the_first_content_has_its_status(server: LiveServer, upstream: Upstream) -> None:
    response = post(server, "status-chat", stream=True)
    assert (response.status_code, response.json()["error"]["code"]) == (429, "rate_limit_exceeded")


def test_failover_from_a_native_to_a_translated_model(server: LiveServer, upstream: Upstream) -> None:
    response = post(server, "routed", stream=True)
    assert check_events(parse_events(response.content))["model"] == "routed"
    assert response.headers["x-openai-compat-upstream"] == "translated"
    assert [path for path, _ in upstream.calls] == ["responses", "chat/completions"]


def test_the_wait_for_a_translated_answer_is_filled_with_events(server: LiveServer, upstream: Upstream) -> None:
    """Some clients give up without an event, and comments do not count."""
    with requests.post(
        f"{server.base_url}/responses", json={"model": "slow-chat", "input": "Hi", "stream": True}, stream=True,
        timeout=20,
    ) as response:  # fmt: skip
        received = b""
        for block in response.iter_content(None):
            received += block
            if received.count(b"event: response.in_progress") >= 3:
                upstream.go_on.set()
    events = parse_events(received)
    kept = [event for event in events if event["type"] != "response.in_progress"]
    assert types_of(events).count("in_progress") >= 3
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert types_of(kept)[0] == "created"
    assert types_of(kept)[-1] == "completed"


def test_a_gap_in_an_upstreams_stream_is_filled_with_its_own_response(server: LiveServer, upstream: Upstream) -> None:
    with requests.post(
        f"{server.base_url}/responses", json={"model": "slow", "input": "Hi", "stream": True}, stream=True, timeout=20
    ) as response:
        received = b""
        for block in response.iter_content(None):
            received += block
            if b"event: response.in_progress" in received:
                upstream.go_on.set()
    events = parse_events(received)
    assert types_of(events)[:3] == ["created", "output_text.delta", "in_progress"]
    assert types_of(events)[-1] == "completed"
    assert {event["response"]["id"] for event in events if "response" in event} == {RESPONSE["id"]}


def test_a_client_that_disconnects_stops_the_upstream(server: LiveServer, upstream: Upstream) -> None:
    payload = {"model": "hang", "input": "Hi", "stream": True}
    with requests.post(f"{server.base_url}/responses", json=payload, stream=True, timeout=20) as response:
        next(response.iter_content(None))
    assert upstream.closed.wait(20)


def test_sealed_reasoning_comes_back_to_the_model(server: LiveServer, upstream: Upstream) -> None:
    question = {"role": "user", "content": "1 + 2?"}
    options = {"store": False, "include": ["reasoning.encrypted_content"], "reasoning": {"summary": "auto"}}
    tools = [{"type": "function", "name": "add", "parameters": None}]
    response = check_events(stream(server, "thinks", **options, input=[question], tools=tools))
    reasoning, call = response["output"]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "I should add."}]
    assert reasoning["encrypted_content"]
    sent_back = {**reasoning, "summary": [], "content": None}
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "3"}
    stream(server, "thinks", **options, input=[question, sent_back, call, output], tools=tools)
    assert upstream.messages[1] == {
        "role": "assistant", "content": None, "reasoning_content": "I should add.",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}],
    }  # fmt: skip


def test_reasoning_is_sealed_only_on_request(server: LiveServer, upstream: Upstream) -> None:
    reasoning, _ = check_events(stream(server, "thinks"))["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "I should add."}]
    assert "encrypted_content" not in reasoning


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"previous_response_id": "resp_x"}, 400, "previous_response_not_found"),
        ({"conversation": {"id": "conv_x"}}, 404, None),
        ({"input": [{"type": "item_reference", "id": "rs_x"}]}, 404, None),
        ({"input": [{"id": "msg_x"}]}, 404, None),
        ({"background": True, "store": False}, 400, "unsupported_parameter"),
        ({"previous_response_id": "resp_x", "conversation": "conv_x"}, 400, "mutually_exclusive_parameters"),
        ({"input": 3}, 400, "invalid_type"),
    ],
)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_what_needs_a_store_is_unknown(
    server: LiveServer, upstream: Upstream, fields: dict[str, Any], status: int, code: str | None, is_streamed: bool
) -> None:
    response = post(server, "translated", stream=is_streamed, **fields)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
