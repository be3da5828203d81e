"""`POST /ask` through a live gunicorn, in front of an upstream that misbehaves on demand."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream

FORMATS = ["sse", "text", "ui"]
CUT = "The answer broke off before it was complete. Please try again."
LATE = "The answer took too long. Please try again."
COMMENT = b": keep-alive\n\n"
MESSAGES = [{"role": "user", "content": "one two three four five six"}]


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        yield mock


@pytest.fixture(scope="module")
def server(upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Every model is the upstream's; `impatient` is one that never answers, and that nobody waits for."""
    impatient = {"name": "impatient", "kind": "openai", "base_url": upstream.base_url, "upstream_model": "fault-hang"}
    models = tmp_path_factory.mktemp("models") / "models.json"
    models.write_text(json.dumps([{**impatient, "timeout": {"first_byte": 0.5}}]))
    settings = {
        "OPENAI_BASE_URL": upstream.base_url,
        "OPENAI_API_KEY": "sk-of-the-server",
        "MODELS_FILE": str(models),
        "SSE_KEEPALIVE_SECONDS": "0.2",
    }
    with LiveServer(settings) as live:
        yield live


def start(
    server: LiveServer, model: str, name: str = "sse", messages: Any = MESSAGES, **more: Any
) -> http.client.HTTPConnection:
    """Sends the request; the answer is for the caller to read."""
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
def test_a_whole_answer_is_the_same_text_in_each_format(server: LiveServer, model: str, name: str) -> None:
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
def test_the_first_piece_comes_while_the_model_still_writes(
    server: LiveServer, upstream: MockUpstream, name: str
) -> None:
    with closing(start(server, "fault-stall", name)) as connection:
        reply = connection.getresponse()
        received = reply.read1()
        while not text_of(name, received):
            received += reply.read1()
        upstream.wait_until(lambda stats: stats["requests_open"] == 1)


@pytest.mark.parametrize("model", ["fault-cut", "fault-cut-mid-event", "fault-reset"])
def test_a_cut_answer_never_looks_like_a_whole_one(server: LiveServer, model: str) -> None:
    status, body = ask(server, model)
    last = events(body)[-1]
    assert (status, last["finish_reason"], last["error"], last["content"]) == (200, "error", "upstream_error", CUT)
    assert last["details"]

    status, body = ask(server, model, "ui")
    assert status == 200
    assert events(body)[-1] == {"type": "error", "errorText": CUT}

    with closing(start(server, model, "text")) as connection:
        reply = connection.getresponse()
        assert reply.status == 200
        with pytest.raises(http.client.IncompleteRead):
            reply.read()


def test_an_error_in_the_upstreams_stream_is_told_in_its_words(server: LiveServer) -> None:
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
def test_an_error_before_the_first_piece_is_a_500_in_seed_4s_shape(
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


def test_retry_after_is_passed_on(server: LiveServer) -> None:
    with closing(start(server, "fault-status:code=429,retry_after=7")) as connection:
        assert connection.getresponse().headers["retry-after"] == "7"


@pytest.mark.parametrize("name", ["sse", "ui"])
def test_a_silence_before_the_first_piece_is_filled(server: LiveServer, name: str) -> None:
    status, body = ask(server, "fault-slow-first:delay=0.7", name)
    assert status == 200
    assert body.startswith(COMMENT)
    assert body.count(COMMENT) >= 2
    assert "one two three four five six" in text_of(name, body)


@pytest.mark.parametrize("name", ["sse", "ui"])
def test_a_silence_between_two_pieces_is_filled(server: LiveServer, name: str) -> None:
    body = ask(server, "fault-slow:delay=0.25,chunks=2", name)[1]
    first_piece = body.index(b"data: ")
    assert COMMENT in body[first_piece:]


def test_text_has_no_place_for_a_sign_of_life(server: LiveServer) -> None:
    status, body = ask(server, "fault-slow-first:delay=0.7", "text")
    assert status == 200
    assert b"keep-alive" not in body
    assert text_of("text", body).endswith("six")


def test_an_answer_that_never_begins_is_told_where_the_status_is_out_already(server: LiveServer) -> None:
    with closing(start(server, "impatient")) as connection:
        reply = connection.getresponse()
        assert (reply.status, reply.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        assert events(reply.read())[-1]["content"] == LATE
    with closing(start(server, "impatient", "ui")) as connection:
        reply = connection.getresponse()
        assert (reply.status, reply.headers["x-vercel-ai-ui-message-stream"]) == (200, "v1")
        assert events(reply.read()) == [{"type": "error", "errorText": LATE}]


def test_an_answer_that_never_begins_has_a_status_in_text(server: LiveServer) -> None:
    status, body = ask(server, "impatient", "text")
    assert status == 500
    assert json.loads(body)["content"] == LATE


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("model", ["fault-stall", "fault-slow:delay=0.05,chunks=1000"])
def test_a_client_that_leaves_closes_the_upstream_within_a_second(
    server: LiveServer, upstream: MockUpstream, model: str, name: str
) -> None:
    before = upstream.stats()["requests_aborted"]
    with closing(start(server, model, name)) as connection:
        assert connection.getresponse().read1()
    upstream.wait_until(lambda stats: stats["requests_aborted"] == before + 1, timeout=1.0)


@pytest.mark.parametrize("name", FORMATS)
def test_a_client_that_leaves_before_the_first_piece_closes_the_upstream_too(
    server: LiveServer, upstream: MockUpstream, name: str
) -> None:
    before = upstream.stats()
    with closing(start(server, "fault-hang", name)):
        upstream.wait_until(lambda stats: stats["requests_total"] > before["requests_total"])
        time.sleep(0.3)  # long enough for comments to have begun where the format has them
    upstream.wait_until(lambda stats: stats["requests_aborted"] > before["requests_aborted"], timeout=1.0)


def test_what_a_page_sends_reaches_the_upstream_in_openais_terms(server: LiveServer, upstream: MockUpstream) -> None:
    picture = {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,AAAA"}
    tool = {"type": "tool-clock", "toolCallId": "call_1", "state": "output-available", "input": {"in": "Rome"}}
    messages = [
        {"id": "1", "role": "user", "parts": [{"type": "text", "text": "What is this?"}, picture]},
        {"id": "2", "role": "assistant", "parts": [{"type": "step-start"}, {**tool, "output": {"hour": 12}}]},
        {"id": "3", "role": "user", "parts": [{"type": "text", "text": "And now?"}], "metadata": {"at": 1}},
    ]
    wishes = {"temperature": 0.2, "stop": ["END"], "reasoning_effort": "low"}
    assert ask(server, "mock-model", "ui", messages, **wishes, id="chat-1", theme={"dark": True})[0] == 200
    body = json.loads(upstream.requests()[-1]["body"])
    assert body.keys() - {"model", "messages", "stream_options"} == {"stream", *wishes}
    assert {name: body[name] for name in wishes} == wishes
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
