"""Streams of the Responses API, the Messages API and `/ask` that break off and are continued by another model."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from openai_compat.services.sse_events import DONE
from tests.support.live_server import LiveServer
from tests.support.messages_events import parse_events as parse_message_events
from tests.support.messages_events import read_message
from tests.support.raw_server import RawServer, read_request
from tests.support.responses_events import Event, check_events, parse_events
from tests.support.waiting import wait_until

EVENTS_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
SENT = "one two"
TEXT = "one two three"
USAGE = {"prompt_tokens": 40, "completion_tokens": 7, "total_tokens": 47}
CLIENT_ERROR = {"error": {"message": "No partial answers.", "type": "invalid_request_error"}}


def chunk(delta: Any, finish_reason: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    data = {"id": "c", "object": "chat.completion.chunk", "choices": [choice], **fields}
    return b"data: %b\n\n" % json.dumps(data).encode()


def texts(*parts: str) -> bytes:
    return b"".join(chunk({"content": part}) for part in parts)


def complete(status: str, body: Any, missing: int = 0) -> bytes:
    """Return a response whose body lacks its last bytes."""
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + data[: len(data) - missing]


def named_event(type_: str, **fields: Any) -> bytes:
    return f"event: {type_}\ndata: {json.dumps({'type': type_, **fields})}\n\n".encode()


ROLE = chunk({"role": "assistant", "content": ""})
END = chunk({}, "stop", usage=USAGE) + b"data: [DONE]\n\n"
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a":'}}
WHOLE_CALL = {**CALL, "function": {"name": "add", "arguments": '{"a":1}'}}
STREAMS = {
    "cut": ROLE + texts("one ", "two"),
    "cut-later": ROLE + texts("one two", " thr"),
    "cut-in-call": ROLE + chunk({"content": SENT}) + chunk({"tool_calls": [CALL]}),
    "cut-in-reasoning": ROLE + chunk({"content": SENT}) + chunk({"reasoning_content": "Hm"}),
    "error-within": ROLE + chunk({"content": SENT}) + b'data: {"error":{"message":"Boom.","code":503}}\n\n',
    "rest": ROLE + texts(" thr", "ee") + END,
    "rest-reasoned": ROLE + chunk({"reasoning_content": "Hm"}) + texts(" thr", "ee") + END,
    "again": ROLE + texts("one", " two th", "ree") + END,
    "again-calls": ROLE + chunk({"content": SENT, "tool_calls": [WHOLE_CALL]}) + chunk({}, "tool_calls") + DONE,
    "other": ROLE + texts("One two three") + END,
}
"""Answers to streamed chats by the model's name."""
MESSAGE = {"type": "message", "role": "assistant", "content": [], "usage": {"input_tokens": 40}}
CLAUDE = (
    named_event("message_start", message=MESSAGE)
    + named_event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    + named_event("content_block_delta", index=0, delta={"type": "text_delta", "text": " three"})
    + named_event("content_block_stop", index=0)
    + named_event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 7})
    + named_event("message_stop")
)  # fmt: skip
COMPLETION = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": USAGE,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
}  # fmt: skip
CREATED = {"id": "resp_1", "object": "response", "status": "in_progress", "model": "x", "output": []}
NATIVE = named_event("response.created", sequence_number=0, response=CREATED) + named_event(
    "response.output_text.delta", sequence_number=1, delta=SENT
)


class Upstream:
    """An upstream whose answer the model's name chooses. It keeps the path and the payload of each request."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Event]] = []
        self.server = RawServer(self._serve)

    @property
    def models(self) -> list[str]:
        return [payload["model"] for _, payload in self.calls]

    def _serve(self, client: socket.socket) -> None:
        head, _, body = read_request(client).partition(b"\r\n\r\n")
        path, payload = head.split(b" ")[1].decode(), json.loads(body)
        model = payload["model"]
        self.calls.append((path, payload))
        if path.endswith("/responses"):
            client.sendall(EVENTS_HEAD + NATIVE)
        elif path.endswith("/messages"):
            client.sendall(EVENTS_HEAD + CLAUDE)
        elif model == "refuses" and payload["messages"][-1]["role"] == "assistant":
            client.sendall(complete("400 Bad Request", CLIENT_ERROR))
        elif payload.get("stream"):
            client.sendall(EVENTS_HEAD + STREAMS.get(model, STREAMS["rest" if model == "native" else "again"]))
        else:
            client.sendall(complete("200 OK", COMPLETION, missing=9 if model == "cut" else 0))


@pytest.fixture(scope="module")
def running() -> Iterator[Upstream]:
    upstream = Upstream()
    with upstream.server:
        yield upstream


@pytest.fixture
def upstream(running: Upstream) -> Upstream:
    running.calls.clear()
    return running


def rows(url: str) -> Iterator[dict[str, Any]]:
    """Yield the models that break, those that continue, and a route from one to the other."""
    row = {"kind": "openai", "base_url": f"{url}/v1", "responses": "translated"}
    for name in STREAMS:
        yield {"name": name, **row}
    yield {"name": "rest-prefixed", **row, "upstream_model": "rest", "assistant_prefill": "prefix"}
    yield {"name": "reasons", **row, "upstream_model": "rest-reasoned", "assistant_prefill": True}
    yield {"name": "refuses", **row, "assistant_prefill": True}
    yield {"name": "claude", "kind": "anthropic", "base_url": url, "assistant_prefill": True}
    yield {"name": "native", **row, "responses": "native", "assistant_prefill": True}
    policy = {"on_stream_break": "continue", "cooldown": 0, "retries": 0}
    for name, first, *fallbacks in (
        ("continued", "cut", "rest-prefixed"),
        ("reasoned", "cut", "reasons"),
        ("repeated", "cut", "again"),
        ("refused", "cut", "refuses"),
        ("twice", "cut", "cut-later", "again"),
        ("error", "error-within", "again"),
        ("to-claude", "cut", "claude"),
        ("to-native", "cut", "native"),
        ("diverged", "cut", "other"),
        ("with-call", "cut", "again-calls"),
        ("passed-over", "cut", "other", "again"),
        ("in-call", "cut-in-call", "again"),
        ("in-reasoning", "cut-in-reasoning", "again"),
        ("from-native", "native", "again"),
    ):
        yield {"name": name, "targets": [first], "fallbacks": fallbacks, **policy}
    yield {"name": "ends", "targets": ["cut"], "fallbacks": ["again"], "cooldown": 0}


@pytest.fixture(scope="module")
def server(running: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder: Path = tmp_path_factory.mktemp("server")
    (folder / "models.json").write_text(json.dumps(list(rows(running.server.url))))
    settings = {"MODELS_FILE": str(folder / "models.json"), "DATA_DIR": str(folder), "SSE_KEEPALIVE_SECONDS": "20"}
    with LiveServer(settings) as live:
        yield live


CONTINUED = ["continued", "reasoned", "repeated", "refused", "passed-over", "twice", "error"]
NOT_CONTINUED = ["diverged", "in-call", "in-reasoning", "ends"]


def respond(server: LiveServer, model: str, **fields: Any) -> requests.Response:
    payload = {"model": model, "input": "Count.", **fields}
    return requests.post(f"{server.base_url}/responses", json=payload, timeout=20)


def stream_response(server: LiveServer, model: str, **fields: Any) -> list[Event]:
    response = respond(server, model, stream=True, **fields)
    assert response.status_code == 200, response.text
    return parse_events(response.content)


def stream_message(server: LiveServer, model: str, **fields: Any) -> list[Event]:
    payload = {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": "Count."}], **fields}
    response = requests.post(f"{server.base_url}/messages", json={**payload, "stream": True}, timeout=20)
    assert response.status_code == 200, response.text
    return parse_message_events(response.content)


def check_output(response: Event) -> None:
    """Check that a response has one message with the whole text, and the usage of the model that completed it."""
    (item,) = response["output"]
    (part,) = item["content"]
    assert (response["status"], item["status"], part["text"]) == ("completed", "completed", TEXT)
    assert (response["usage"]["input_tokens"], response["usage"]["output_tokens"]) == (40, 7)


def stored(server: LiveServer, id: str) -> requests.Response:
    return requests.get(f"{server.base_url}/responses/{id}", timeout=20)


@pytest.mark.parametrize("store", [True, False], ids=["stored", "not stored"])
@pytest.mark.parametrize("model", CONTINUED)
def test_a_response_is_continued_in_the_same_item(
    server: LiveServer, upstream: Upstream, model: str, *, store: bool
) -> None:
    events = stream_response(server, model, store=store)
    response = check_events(events)
    check_output(response)
    assert "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta") == TEXT
    found = stored(server, response["id"])
    assert found.status_code == (200 if store else 404)
    if store:
        assert found.json() == response


def test_the_model_is_asked_for_the_rest_of_the_limit(server: LiveServer, upstream: Upstream) -> None:
    stream_response(server, "continued", max_output_tokens=50)
    (_, first), (_, second) = upstream.calls
    assert second["messages"] == [*first["messages"], {"role": "assistant", "content": SENT, "prefix": True}]
    assert 40 < second["max_completion_tokens"] < first["max_completion_tokens"] == 50


def test_a_call_beside_the_repeated_text_reaches_the_client(server: LiveServer, upstream: Upstream) -> None:
    """It was dropped, and the answer ended as if it had a call."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    events = stream_response(
        server, "with-call", tools=[{"type": "function", "name": "add", "parameters": schema, "strict": False}]
    )
    text, call = check_events(events)["output"]
    assert text["content"][0]["text"] == SENT
    assert (call["type"], call["name"], call["arguments"]) == ("function_call", "add", '{"a":1}')
    message = read_message(stream_message(server, "with-call", tools=[{"name": "add", "input_schema": schema}]))
    assert [block.get("text", block.get("input")) for block in message["content"]] == [SENT, {"a": 1}]
    assert message["stop_reason"] == "tool_use"


def test_structured_output_is_asked_for_from_the_start(server: LiveServer, upstream: Upstream) -> None:
    """A server applies a schema to what its model writes, so that the rest of a value would be another whole value."""
    schema = {"type": "object", "properties": {}, "additionalProperties": False, "required": []}
    events = stream_response(
        server, "continued", text={"format": {"type": "json_schema", "name": "n", "schema": schema}}
    )
    stream_message(server, "continued", output_config={"format": {"type": "json_schema", "schema": schema}})
    assert events[-1]["type"] == "response.failed"
    assert [payload["messages"][-1]["role"] for _, payload in upstream.calls] == ["user"] * 4
    assert all("response_format" in payload for _, payload in upstream.calls)


@pytest.mark.parametrize("model", NOT_CONTINUED)
def test_a_response_that_is_not_continued_fails(server: LiveServer, upstream: Upstream, model: str) -> None:
    events = stream_response(server, model)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert events[-1]["response"]["error"]["code"] == "upstream_cut"
    assert "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta") == SENT
    assert upstream.models.count("again") == 0


def test_a_passed_through_response_is_not_continued(server: LiveServer, upstream: Upstream) -> None:
    events = stream_response(server, "from-native")
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert events[-1]["response"]["id"] == CREATED["id"]
    assert upstream.models == ["native"]


@pytest.mark.parametrize("model", ["to-claude", "to-native"])
def test_a_model_that_speaks_the_clients_protocol_continues_by_translation(
    server: LiveServer, upstream: Upstream, model: str
) -> None:
    """Only a translated answer can be a part of one that has begun."""
    response = check_events(stream_response(server, model))
    assert "".join(part["text"] for item in response["output"] for part in item["content"]) == TEXT
    assert read_message(stream_message(server, model))["content"] == [{"type": "text", "text": TEXT}]
    assert not any(path.endswith("/responses") for path, _ in upstream.calls)


def test_a_whole_response_comes_from_the_fallback_alone(server: LiveServer, upstream: Upstream) -> None:
    response = respond(server, "repeated")
    check_output(response.json())
    assert stored(server, response.json()["id"]).json() == response.json()
    assert upstream.models == ["cut", "again"]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "polled"])
def test_a_background_response_is_continued(server: LiveServer, upstream: Upstream, *, stream: bool) -> None:
    queued = respond(server, "continued", background=True, stream=stream)
    if stream:
        response = parse_events(queued.content)[-1]["response"]
        check_output(response)
        id = response["id"]
        replayed = requests.get(f"{server.base_url}/responses/{id}?stream=true", timeout=20)
        assert parse_events(replayed.content) == parse_events(queued.content)
    else:
        id = queued.json()["id"]
        wait_until(lambda: stored(server, id).json()["status"] not in ("queued", "in_progress"), "it has ended")
    check_output(stored(server, id).json())
    assert len(upstream.calls) == 2


def test_the_official_client_reads_one_message(server: LiveServer, upstream: Upstream) -> None:
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        with client.responses.stream(model="continued", input="Count.") as stream:
            response = stream.get_final_response()
        following = client.responses.create(model="again", input="Go on.", previous_response_id=response.id)
    assert (response.output_text, len(response.output)) == (TEXT, 1)
    assert following.output_text == TEXT
    assert upstream.calls[-1][1]["messages"][1] == {"role": "assistant", "content": TEXT}


@pytest.mark.parametrize("model", CONTINUED)
def test_a_message_is_continued_in_the_same_block(server: LiveServer, upstream: Upstream, model: str) -> None:
    message = read_message(stream_message(server, model))
    assert message["content"] == [{"type": "text", "text": TEXT}]
    assert message["stop_reason"] == "end_turn"
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (40, 7)


def test_a_message_is_continued_within_its_limit(server: LiveServer, upstream: Upstream) -> None:
    stream_message(server, "continued")
    (_, first), (_, second) = upstream.calls
    assert second["messages"][-1] == {"role": "assistant", "content": SENT, "prefix": True}
    assert 90 < second["max_completion_tokens"] < first["max_completion_tokens"] == 100


@pytest.mark.parametrize("model", NOT_CONTINUED)
def test_a_message_that_is_not_continued_ends_with_an_error(server: LiveServer, upstream: Upstream, model: str) -> None:
    events = stream_message(server, model)
    types = [event["type"] for event in events]
    assert (types.count("error"), types[-1]) == (1, "error")
    assert "message_stop" not in types
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(delta.get("text", "") for delta in deltas) == SENT
    assert upstream.models.count("again") == 0


@pytest.mark.parametrize("model", CONTINUED)
def test_ask_continues_the_message_that_has_begun(server: LiveServer, upstream: Upstream, model: str) -> None:
    payload = {"model": model, "messages": [{"role": "user", "content": "Count."}]}
    response = requests.post(f"{server.url}/ask?format=ui", json=payload, timeout=20)
    data = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    parts = [json.loads(line) for line in data]
    deltas = [part for part in parts if part["type"] == "text-delta"]
    assert "".join(part["delta"] for part in deltas) == TEXT
    assert [part["type"] for part in parts if part not in deltas] == [
        "start", "start-step", "text-start", "text-end", "finish-step", "finish",
    ]  # fmt: skip


def test_the_log_names_the_models_of_a_continued_response(server: LiveServer, upstream: Upstream) -> None:
    stream_response(server, "twice")
    wait_until(lambda: "tried=cut,cut-later,again" in server.log(), server.log)
