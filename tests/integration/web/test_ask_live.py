"""`POST /ask` of a live server in front of the mock upstream and its faults."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream

FORMATS = ["sse", "text", "ui"]
TRUNCATED = "The answer broke off before it was complete. Please try again."
TIMEOUT = "The answer took too long. Please try again."
COMMENT = b": keep-alive\n\n"
MESSAGES = [{"role": "user", "content": "one two three four five six"}]


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        yield mock


@pytest.fixture(scope="module")
def server(upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Return a server of the upstream's models. `times-out` never answers and has a short timeout."""
    hanging = {"name": "times-out", "kind": "openai", "base_url": upstream.base_url, "upstream_model": "fault-hang"}
    models = tmp_path_factory.mktemp("models") / "models.json"
    models.write_text(json.dumps([{**hanging, "timeout": {"first_byte": 0.5}}]))
    settings = {
        "OPENAI_BASE_URL": upstream.base_url,
        "OPENAI_API_KEY": "sk-of-the-server",
        "MODELS_FILE": str(models),
        "SSE_KEEPALIVE_SECONDS": "0.2",
    }
    with LiveServer(settings) as live:
        yield live


@pytest.fixture(scope="module")
def server_without_comments(upstream: MockUpstream) -> Iterator[LiveServer]:
    """Return a server that writes nothing in an idle gap, so that no failed write reveals a client disconnect."""
    with LiveServer({"OPENAI_BASE_URL": upstream.base_url, "SSE_KEEPALIVE_SECONDS": "3600"}) as live:
        yield live


def start(
    server: LiveServer, model: str, name: str = "sse", messages: Any = MESSAGES, **more: Any
) -> http.client.HTTPConnection:
    """Send the request and return the connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    body = json.dumps({"model": model, "messages": messages, **more})
    connection.request("POST", f"/ask?format={quote(name)}", body, {"Content-Type": "application/json"})
    return connection


def ask(server: LiveServer, model: str, name: str = "sse", messages: Any = MESSAGES, **more: Any) -> tuple[int, bytes]:
    with closing(start(server, model, name, messages, **more)) as connection:
        reply = connection.getresponse()
        return reply.status, reply.read()


def events(body: bytes) -> list[Any]:
    lines = [line[6:] for line in body.decode().split("\n\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def text_of(name: str, body: bytes) -> str:
    if name == "text":
        return body.decode()
    key = "content" if name == "sse" else "delta"
    return "".join(event.get(key, "") for event in events(body) if event != "[DONE]")


HEALTHY = ["mock-model", "fault-crlf", "fault-comments", "fault-coalesced", "fault-one-byte", "fault-split-utf8"]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("model", [*HEALTHY, "fault-empty-choices-first", "fault-no-done", "fault-no-usage"])
def test_a_complete_answer_has_the_same_text_in_each_format(server: LiveServer, model: str, name: str) -> None:
    status, body = ask(server, model, name)
    assert status == 200, body
    text = text_of(name, body)
    assert "one two three four five six" in text
    assert ("é 日 🌍" in text) == (model == "fault-split-utf8")
    if name == "sse":
        assert events(body)[-1] == {"role": "assistant", "content": "", "finish_reason": "stop"}
    if name == "ui":
        assert events(body)[-2:] == [{"type": "finish", "finishReason": "stop"}, "[DONE]"]


@pytest.mark.parametrize("name", FORMATS)
def test_the_first_token_arrives_before_the_answer_is_complete(
    server: LiveServer, upstream: MockUpstream, name: str
) -> None:
    with closing(start(server, "fault-stall", name)) as connection:
        reply = connection.getresponse()
        received = reply.read1()
        while not text_of(name, received):
            received += reply.read1()
        upstream.wait_until(lambda stats: stats["requests_open"] == 1)


@pytest.mark.parametrize("model", ["fault-cut", "fault-cut-mid-event", "fault-reset"])
def test_a_truncated_answer_never_looks_complete(server: LiveServer, model: str) -> None:
    status, body = ask(server, model)
    last = events(body)[-1]
    assert (status, last["finish_reason"], last["error"], last["content"]) == (
        200,
        "error",
        "upstream_error",
        TRUNCATED,
    )
    assert last["details"]

    status, body = ask(server, model, "ui")
    assert status == 200
    assert events(body)[-1] == {"type": "error", "errorText": TRUNCATED}

    with closing(start(server, model, "text")) as connection:
        reply = connection.getresponse()
        assert reply.status == 200
        with pytest.raises(http.client.IncompleteRead):
            reply.read()


def test_an_error_in_the_upstreams_stream_is_sent_in_each_format(server: LiveServer) -> None:
    last = events(ask(server, "fault-error-in-stream")[1])[-1]
    assert last["finish_reason"] == "error"
    assert last["details"]
    assert events(ask(server, "fault-error-in-stream", "ui")[1])[-1]["type"] == "error"


REFUSALS = [
    ("fault-status:code=429,retry_after=7", "There are too many requests right now. Please try again in a moment."),
    ("fault-status:code=503", "No answer can be had right now. Please try again in a moment."),
    ("fault-status:code=401", "No answer can be had right now. Please try again in a moment."),
    ("fault-context-length", "The conversation has become too long for the model."),
    ("fault-html-error", "No answer can be had right now. Please try again in a moment."),
    ("fault-reset-before", None),
    ("fault-bad-json", None),
]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("model", "sentence"), REFUSALS)
def test_an_error_before_the_first_token_is_a_500_with_a_message(
    server: LiveServer, model: str, sentence: str | None, name: str
) -> None:
    status, body = ask(server, model, name)
    error = json.loads(body)
    assert status == 500
    assert error.keys() == {"role", "content", "error", "details"}
    assert error["role"] == "assistant"
    assert sentence in (None, error["content"])
    assert error["details"]
    assert b"sk-of-the-server" not in body


def test_retry_after_is_forwarded(server: LiveServer) -> None:
    with closing(start(server, "fault-status:code=429,retry_after=7")) as connection:
        assert connection.getresponse().headers["retry-after"] == "7"


@pytest.mark.parametrize("name", ["sse", "ui"])
def test_an_idle_gap_before_the_first_token_is_filled_with_comments(server: LiveServer, name: str) -> None:
    status, body = ask(server, "fault-slow-first:delay=0.7", name)
    assert status == 200
    assert body.startswith(COMMENT)
    assert body.count(COMMENT) >= 2
    assert "one two three four five six" in text_of(name, body)


@pytest.mark.parametrize("name", ["sse", "ui"])
def test_an_idle_gap_between_two_tokens_is_filled_with_comments(server: LiveServer, name: str) -> None:
    body = ask(server, "fault-slow:delay=0.25,chunks=2", name)[1]
    first_event = body.index(b"data: ")
    assert COMMENT in body[first_event:]


def test_the_text_format_has_no_comments(server: LiveServer) -> None:
    status, body = ask(server, "fault-slow-first:delay=0.7", "text")
    assert status == 200
    assert b"keep-alive" not in body
    assert text_of("text", body).endswith("six")


def test_a_timeout_after_the_status_was_sent_is_an_error_in_the_stream(server: LiveServer) -> None:
    with closing(start(server, "times-out")) as connection:
        reply = connection.getresponse()
        assert (reply.status, reply.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        assert events(reply.read())[-1]["content"] == TIMEOUT
    with closing(start(server, "times-out", "ui")) as connection:
        reply = connection.getresponse()
        assert (reply.status, reply.headers["x-vercel-ai-ui-message-stream"]) == (200, "v1")
        assert events(reply.read()) == [{"type": "error", "errorText": TIMEOUT}]


def test_a_timeout_in_the_text_format_is_a_500(server: LiveServer) -> None:
    status, body = ask(server, "times-out", "text")
    assert status == 500
    assert json.loads(body)["content"] == TIMEOUT


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("model", ["fault-stall", "fault-slow:delay=0.05,chunks=20000"])
def test_a_client_disconnect_aborts_the_upstream_request(
    server_without_comments: LiveServer, upstream: MockUpstream, model: str, name: str
) -> None:
    """The first model would never finish, and the second one after 17 minutes."""
    before = upstream.stats()["requests_aborted"]
    with closing(start(server_without_comments, model, name)) as connection:
        assert connection.getresponse().read1()
    upstream.wait_until(lambda stats: stats["requests_aborted"] == before + 1)


@pytest.mark.parametrize("name", FORMATS)
def test_a_client_disconnect_before_the_first_token_aborts_the_upstream_request(
    server_without_comments: LiveServer, upstream: MockUpstream, name: str
) -> None:
    before = upstream.stats()
    with closing(start(server_without_comments, "fault-hang", name)):
        upstream.wait_until(lambda stats: stats["requests_total"] > before["requests_total"])
    upstream.wait_until(lambda stats: stats["requests_aborted"] > before["requests_aborted"])


@pytest.mark.parametrize("name", ["sse", "ui"])
def test_a_client_disconnect_after_the_first_comment_aborts_the_upstream_request(
    server: LiveServer, upstream: MockUpstream, name: str
) -> None:
    before = upstream.stats()["requests_aborted"]
    with closing(start(server, "fault-hang", name)) as connection:
        assert connection.getresponse().read(len(COMMENT)) == COMMENT
    upstream.wait_until(lambda stats: stats["requests_aborted"] > before)


def test_the_upstream_receives_openai_messages_and_options(server: LiveServer, upstream: MockUpstream) -> None:
    picture = {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,AAAA"}
    tool = {"type": "tool-clock", "toolCallId": "call_1", "state": "output-available", "input": {"in": "Rome"}}
    messages = [
        {"id": "1", "role": "user", "parts": [{"type": "text", "text": "What is this?"}, picture]},
        {"id": "2", "role": "assistant", "parts": [{"type": "step-start"}, {**tool, "output": {"hour": 12}}]},
        {"id": "3", "role": "user", "parts": [{"type": "text", "text": "And now?"}], "metadata": {"at": 1}},
    ]
    options = {"temperature": 0.2, "stop": ["END"], "reasoning_effort": "low"}
    assert ask(server, "mock-model", "ui", messages, **options, id="chat-1", theme={"dark": True})[0] == 200
    body = json.loads(upstream.requests()[-1]["body"])
    assert body.keys() - {"model", "messages", "stream_options"} == {"stream", *options}
    assert {name: body[name] for name in options} == options
    assert body["stream"] is True
    function = {"name": "clock", "arguments": '{"in": "Rome"}'}
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": '{"hour": 12}'},
        {"role": "user", "content": "And now?"},
    ]
