"""Faulty answers of upstreams, with every kind of backend, streamed and not, on every endpoint."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.raw_server import RawServer, read_request
from tests.support.tools import has_extra

MESSAGES = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "pay", "parameters": {"type": "object", "properties": {}}}}


def chunk(delta: Any = None, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": finish_reason}
    body = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def answer(*events: bytes, content_type: str = "text/event-stream") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head.encode() + body + b"0\r\n\r\n"


def complete(body: bytes, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


HELLO, STOP, DONE = chunk({"role": "assistant", "content": "Hello"}), chunk({}, "stop"), b"data: [DONE]\n\n"
BOOM = b'event: error\ndata: {"code": "Throttling", "message": "boom"}\n\n'
CALL = {"id": "c1", "type": "function", "function": {"name": "pay", "arguments": '{"amount": 1'}}
COMPLETION = {
    "id": "c-1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
}  # fmt: skip
BROKEN = chunk({"content": "not"})[:-6] + b"\n\n"

ANSWERS = {
    "complete": answer(HELLO, STOP, DONE),
    "plain-text-type": answer(HELLO, STOP, DONE, content_type="text/plain"),
    "json-type": answer(HELLO, STOP, DONE, content_type="application/json"),
    "no-stream": complete(json.dumps(COMPLETION).encode()),
    "late-error": answer(HELLO, BOOM, DONE),
    "late-unknown-error": answer(HELLO, BOOM.replace(b"Throttling", b"x"), DONE),
    "first-error": answer(BOOM, DONE),
    "error-field": answer(b"error: boom\n\n", DONE),
    "bare-error": answer(b'data: {"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "boom"}\n\n', DONE),
    "only-done": answer(DONE),
    "comments": answer(b": PROCESSING\n\n", DONE),
    "html": complete(b"<!doctype html><title>Hi</title>", content_type="text/html"),
    "html-as-json": complete(b"<html><title>Hi</title>"),
    "html-as-events": complete(b"<html><title>Hi</title>", content_type="text/event-stream"),
    "text": complete(b"All workers are busy", content_type="text/plain"),
    "empty": complete(b""),
    "no-content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "reset-content": complete(json.dumps(COMPLETION).encode(), status="205 Reset Content"),
    "large-headers": complete(
        json.dumps(COMPLETION).encode(), content_type=f"application/json\r\nX-A: {100_000 * 'a'}"
    ),
    "utf-16": complete(json.dumps(COMPLETION).encode("utf-16"), content_type="application/json; charset=utf-16"),
    "status-699": complete(b"{}", status="699 What"),
    "error-with-200": complete(b'{"error": {"message": "boom", "code": 429}}'),
    "error-as-events": complete(b'{"error": {"message": "boom", "code": 429}}', content_type="text/event-stream"),
    "broken-event": answer(chunk({"content": "Transfer "}), BROKEN, HELLO, STOP, DONE),
    "cut-event": answer(HELLO, HELLO[:-9]),
    "emoji": answer(chunk({"content": "\ud83d"}), chunk({"content": "\ude00"}), STOP, DONE),
    "early-reason": answer(chunk({"content": ""}, "stop"), HELLO, STOP, DONE),
    "tool-calls": answer(
        chunk({"role": "assistant", "content": None}),
        chunk({"tool_calls": [CALL]}),
        chunk({"tool_calls": [{"id": "c1", "function": {"arguments": "00}"}}]}),
        STOP,
        DONE,
    ),
}  # fmt: skip


def serve(client: socket.socket) -> None:
    while True:
        model = json.loads(read_request(client).partition(b"\r\n\r\n")[2])["model"]
        client.sendall(ANSWERS[model])
        if model in {"no-content", "reset-content"}:
            return


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder: Path = tmp_path_factory.mktemp("translated")
    with RawServer(serve) as upstream:
        url = f"{upstream.url}/v1"
        entries: list[dict[str, Any]] = [{"name": "spare", "kind": "echo"}]
        for name in ANSWERS:
            entry = {"base_url": url, "upstream_model": name, "api_key_env": "KEY"}
            entries += [
                {**entry, "name": f"databricks-{name}", "kind": "databricks"},
                {**entry, "name": f"translated-{name}", "kind": "openai", "profile": {"translate_responses": True}},
                {**entry, "name": f"external-{name}", "kind": "external", "base_url": f"{url}/chat"},
                {**entry, "name": f"haystack-{name}", "kind": "haystack"},
                {**entry, "name": f"forwarded-{name}", "kind": "openai"},
                {**entry, "name": f"routed-{name}", "kind": "databricks", "fallbacks": ["spare"], "retries": 0},
                {**entry, "name": f"routed-forwarded-{name}", "kind": "openai", "fallbacks": ["spare"], "retries": 0},
            ]
        if not has_extra("haystack"):
            entries = [entry for entry in entries if entry["kind"] != "haystack"]
        (folder / "models.yaml").write_text(json.dumps(entries))
        settings = {
            "MODELS_FILE": str(folder / "models.yaml"),
            "KEY": "k",
            "OPENAI_BASE_URL": url,
            "OPENAI_API_KEY": "k",
        }
        with LiveServer(settings) as live:
            yield live


KINDS = [
    pytest.param("haystack", marks=pytest.mark.extra("haystack")),
    "databricks",
    "translated",
    "forwarded",
    "external",
]
OPENAI_KINDS = KINDS[:-1]
ROUTED = ("routed", "routed-forwarded")


def ask(server: LiveServer, model: str, *, stream: bool = True, **more: Any) -> requests.Response:
    body = {"model": model, "messages": MESSAGES, "stream": stream, **more}
    return requests.post(f"{server.base_url}/chat/completions", json=body, timeout=60)


def events_of(response: requests.Response) -> list[Any]:
    lines = [line[6:] for line in response.content.decode().split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def text_of(response: requests.Response) -> str:
    chunks = [event for event in events_of(response) if "choices" in event]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["complete", "plain-text-type", "no-stream"])
def test_an_answer_arrives_however_the_upstream_sends_it(server: LiveServer, kind: str, name: str) -> None:
    response = ask(server, f"{kind}-{name}")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert (text_of(response), events_of(response)[-1]) == ("Hello", "[DONE]")
    (choice,) = ask(server, f"{kind}-{name}", stream=False).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hello", "stop")


@pytest.mark.parametrize("kind", KINDS)
def test_events_that_are_labelled_as_json_are_streamed(server: LiveServer, kind: str) -> None:
    response = ask(server, f"{kind}-json-type")
    assert (text_of(response), events_of(response)[-1]) == ("Hello", "[DONE]")


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_after_the_first_content_ends_the_stream_with_the_upstreams_message(
    server: LiveServer, kind: str
) -> None:
    response = ask(server, f"{kind}-late-error")
    *chunks, last = events_of(response)
    assert (text_of(response), last["error"]["message"], last["error"]["code"]) == ("Hello", "boom", "Throttling")
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
    for name, status in (("late-error", 429), ("late-unknown-error", 502)):
        whole = ask(server, f"{kind}-{name}", stream=False)
        assert whole.status_code == status
        assert whole.json()["error"]["message"].endswith("boom")


@pytest.mark.parametrize("stream_format", ["sse", "ui"])
def test_ask_reports_an_error_in_the_stream(server: LiveServer, stream_format: str) -> None:
    body = {"model": "late-error", "messages": MESSAGES}
    response = requests.post(f"{server.url}/ask?format={stream_format}", json=body, timeout=20)
    last = events_of(response)[-1]
    assert last.get("details") == "boom" if stream_format == "sse" else last["type"] == "error"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("first-error", 429),
        ("error-field", 502),
        ("error-with-200", 429),
        ("bare-error", 429),
        ("error-as-events", 429),
    ],
)
def test_an_error_as_the_first_event_has_the_status_of_its_code(
    server: LiveServer, kind: str, name: str, status: int
) -> None:
    if (kind, name) == ("external", "bare-error"):
        pytest.skip("an object with any keys may be an answer of an external API")
    for stream in (True, False):
        response = ask(server, f"{kind}-{name}", stream=stream)
        assert response.status_code == status
        assert response.json()["error"]["message"].endswith("boom")
    for route in ROUTED:
        response = ask(server, f"{route}-{name}")
        assert (response.headers["x-openai-compat-upstream"], text_of(response)) == ("spare", "Hi")


NO_ANSWERS = [
    "only-done", "comments", "html", "html-as-json", "text", "empty", "no-content", "reset-content",
    "utf-16", "status-699",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NO_ANSWERS)
def test_a_response_without_an_answer_is_an_error(server: LiveServer, kind: str, name: str) -> None:
    if kind == "external" and name in {"text", "utf-16", "status-699"}:
        pytest.skip("plain text, other encodings and other statuses are read by an external API's own rules")
    for stream in (True, False):
        response = ask(server, f"{kind}-{name}", stream=stream)
        assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_bad_reply")
    for route in ROUTED:
        assert ask(server, f"{route}-{name}").headers["x-openai-compat-upstream"] == "spare"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["html-as-events", "large-headers"])
def test_a_page_labelled_as_events_and_large_headers_are_errors(server: LiveServer, kind: str, name: str) -> None:
    assert [ask(server, f"{kind}-{name}", stream=stream).status_code for stream in (True, False)] == [502, 502]


OTHER_ENDPOINTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", {"prompt": "Hi"}),
    ("/v1/completions", {"prompt": "Hi", "stream": True}),
    ("/v1/embeddings", {"input": "Hi"}),
    ("/ask", {"messages": MESSAGES}),
    ("/ask?format=ui", {"messages": MESSAGES}),
]


@pytest.mark.parametrize("name", [*NO_ANSWERS, "large-headers", "error-with-200"])
def test_no_endpoint_takes_it_for_an_answer(server: LiveServer, name: str) -> None:
    for path, body in OTHER_ENDPOINTS:
        failed = requests.post(server.url + path, json={"model": f"forwarded-{name}", **body}, timeout=60)
        status = 429 if name == "error-with-200" else 502
        assert failed.status_code == (500 if path.startswith("/ask") else status)
        fallen_back = requests.post(server.url + path, json={"model": f"routed-forwarded-{name}", **body}, timeout=60)
        assert (fallen_back.status_code, fallen_back.headers["x-openai-compat-upstream"]) == (200, "spare")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "code"), [("broken-event", "upstream_bad_reply"), ("cut-event", "upstream_cut")])
def test_a_broken_event_with_content_is_an_error(server: LiveServer, kind: str, name: str, code: str) -> None:
    response = ask(server, f"{kind}-{name}")
    last = events_of(response)[-1] if response.status_code == 200 else response.json()
    assert last["error"]["code"] in ({code} if kind != "external" else {code, "upstream_bad_reply"})
    assert "Hello" not in text_of(response) or name == "cut-event"


@pytest.mark.parametrize("kind", KINDS)
def test_an_emoji_split_over_two_events_stays_intact(server: LiveServer, kind: str) -> None:
    assert text_of(ask(server, f"{kind}-emoji")) == "\U0001f600"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "forwarded"])
def test_nothing_follows_the_finish_reason(server: LiveServer, kind: str) -> None:
    response = ask(server, f"{kind}-early-reason")
    *chunks, last, done = events_of(response)
    assert (text_of(response), last["choices"][0]["finish_reason"], done) == ("Hello", "stop", "[DONE]")
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)


@pytest.mark.parametrize("kind", OPENAI_KINDS)
def test_tool_calls_are_repaired(server: LiveServer, kind: str) -> None:
    """The index is missing, the id comes twice, and `stop` would end an agent's loop before the tool has run."""
    chunks = [event["choices"][0] for event in events_of(ask(server, f"{kind}-tool-calls", tools=[TOOL]))[:-1]]
    calls = [call for choice in chunks for call in choice["delta"].get("tool_calls", [])]
    assert {call["index"] for call in calls} == {0}
    assert [call["id"] for call in calls if "id" in call] == ["c1"]
    assert "".join(call["function"]["arguments"] for call in calls) == '{"amount": 100}'
    assert chunks[-1]["finish_reason"] == "tool_calls"
    (choice,) = ask(server, f"{kind}-tool-calls", stream=False, tools=[TOOL]).json()["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert (call["id"], json.loads(call["function"]["arguments"])) == ("c1", {"amount": 100})
    assert choice["finish_reason"] == "tool_calls"
