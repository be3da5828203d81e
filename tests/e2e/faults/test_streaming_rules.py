"""The streaming invariants of docs/internals/architecture.md, observed by a client and at the mock upstream."""

from __future__ import annotations

import http.client
import json
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream

MESSAGES = [{"role": "user", "content": "one two three four five six"}]


def ask(server: LiveServer, model: str, *, stream: bool = True) -> requests.Response:
    body = {"model": model, "messages": MESSAGES, "stream": stream}
    return requests.post(f"{server.base_url}/chat/completions", json=body, timeout=20)


def events_of(response: requests.Response) -> list[Any]:
    """Return the JSON of each event, and `[DONE]` as text."""
    lines = [line[6:] for line in response.content.decode().split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


@contextmanager
def connected(server: LiveServer, model: str, *, stream: bool) -> Iterator[socket.socket]:
    """Yield a socket on which the request was sent and nothing was read."""
    body = json.dumps({"model": model, "messages": MESSAGES, "stream": stream}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(head.encode() + body)
        yield client


# A failure before the first token keeps its status.


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "complete"])
@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("fault-reset-before", 502, "upstream_unreachable"),
        ("fault-close-before", 502, "upstream_unreachable"),
        ("fault-html-error", 502, None),
        ("fault-status:code=429", 429, "rate_limit_exceeded"),
        ("fault-status:code=503", 503, None),
        ("fault-context-length", 400, "context_length_exceeded"),
        ("fault-databricks-error", 400, "BAD_REQUEST"),
        ("fault-vllm-error", 400, "400"),
    ],
)
def test_a_failure_before_the_first_token_keeps_its_status(
    server: LiveServer, model: str, status: int, code: str | None, *, stream: bool
) -> None:
    response = ask(server, model, stream=stream)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert error.keys() >= {"message", "type", "param", "code"}
    assert response.headers["content-type"].startswith("application/json")


def test_an_empty_stream_is_an_error_with_a_status(server: LiveServer) -> None:
    response = ask(server, "fault-empty")
    assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_cut")


def test_a_rejected_key_of_the_server_is_not_reported_as_the_clients(server: LiveServer) -> None:
    response = ask(server, "fault-status:code=401")
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_authentication_failed"
    assert response.headers["x-should-retry"] == "false"
    assert "sk-of-the-server" not in response.text


# A stream that breaks after the first byte never looks complete.

TRUNCATIONS = ["fault-cut", "fault-cut-mid-event", "fault-reset"]


@pytest.mark.parametrize("model", TRUNCATIONS)
def test_a_truncated_stream_ends_with_an_error_event_and_without_done(server: LiveServer, model: str) -> None:
    response = ask(server, model)
    *chunks, last = events_of(response)
    assert response.status_code == 200
    assert last["error"]["code"] == "upstream_cut"
    assert last["error"].keys() == {"message", "type", "param", "code"}
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)


@pytest.mark.parametrize(
    "model", ["fault-cut", "fault-reset", "fault-truncated-length", "fault-bad-json", "fault-empty"]
)
def test_a_truncated_answer_is_an_error(server: LiveServer, model: str) -> None:
    response = ask(server, model, stream=False)
    assert response.status_code == 502
    assert response.json()["error"]["code"] in {"upstream_cut", "upstream_bad_reply"}


@pytest.mark.parametrize("model", ["fault-no-done", "fault-no-finish"])
def test_a_finish_reason_or_done_completes_an_answer(server: LiveServer, model: str) -> None:
    assert events_of(ask(server, model))[-1] == "[DONE]"


def test_a_timeout_after_the_first_event_is_an_error_event(upstream: MockUpstream) -> None:
    with LiveServer({"OPENAI_BASE_URL": upstream.base_url, "UPSTREAM_IDLE_TIMEOUT": "0.3"}) as server:
        assert events_of(ask(server, "fault-stall"))[-1]["error"]["code"] == "upstream_timeout"


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "complete"])
def test_a_timeout_before_the_answer_is_an_error_with_a_status(upstream: MockUpstream, *, stream: bool) -> None:
    settings = {
        "OPENAI_BASE_URL": upstream.base_url,
        "UPSTREAM_FIRST_BYTE_TIMEOUT": "0.3",
        "UPSTREAM_ERROR_STATUS": "504",
    }
    with LiveServer(settings) as server:
        response = ask(server, "fault-hang", stream=stream)
        assert (response.status_code, response.json()["error"]["code"]) == (504, "upstream_timeout")


# Idle gaps are filled with comments, and no event is buffered.


def test_the_headers_of_a_stream_forbid_buffering_and_compression(server: LiveServer) -> None:
    headers = ask(server, "mock-model").headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert "content-length" not in headers
    assert "content-encoding" not in headers


@pytest.mark.parametrize("model", ["fault-slow-first:delay=1", "mock-model:delay=0.5,chunks=3"], ids=["first", "later"])
def test_idle_gaps_are_filled_with_comments(server: LiveServer, model: str) -> None:
    response = ask(server, model)
    assert b": keep-alive\n\n" in response.content
    assert events_of(response)[-1] == "[DONE]"


def test_an_error_after_a_comment_is_an_error_event(upstream: MockUpstream) -> None:
    settings = {
        "OPENAI_BASE_URL": upstream.base_url,
        "SSE_KEEPALIVE_SECONDS": "0.1",
        "UPSTREAM_FIRST_BYTE_TIMEOUT": "0.5",
    }
    with LiveServer(settings) as server:
        response = ask(server, "fault-hang")
        assert (response.status_code, events_of(response)[0]["error"]["code"]) == (200, "upstream_timeout")
        assert response.content.startswith(b": keep-alive\n\n")


def test_a_deferred_stream_returns_its_upstream_connection(upstream: MockUpstream) -> None:
    with LiveServer({"OPENAI_BASE_URL": upstream.base_url, "SSE_KEEPALIVE_SECONDS": "0.05"}) as server:
        upstream.wait_until(lambda stats: stats["requests_open"] == 0)
        upstream.reset()
        for _ in range(5):
            assert events_of(ask(server, "fault-slow-first:delay=0.2"))[-1] == "[DONE]"
        assert upstream.stats()["connections_total"] == 1


def test_an_event_is_forwarded_before_the_next_one_exists(server: LiveServer) -> None:
    with connected(server, "fault-stall", stream=True) as client:
        received = b""
        while b"delta" not in received:
            received += client.recv(65536)


def reset_when_idle(upstream: MockUpstream) -> None:
    """Reset the counters once the requests of earlier tests have ended."""
    upstream.wait_until(lambda stats: stats["requests_open"] == 0)
    upstream.reset()


# A client disconnect aborts the upstream request.

LONG_CALLS = [
    ("fault-hang", True),
    ("fault-hang", False),
    ("fault-hang-headers", True),
    ("fault-hang-headers", False),
    ("fault-stall", True),
    ("fault-stall", False),
    ("mock-model:chunks=20000,delay=0.02", True),
]
"""Models that never finish or take minutes, and whether the call streams."""


@pytest.mark.parametrize(("model", "stream"), LONG_CALLS)
def test_a_client_disconnect_aborts_the_upstream_request(
    server_without_comments: LiveServer, upstream: MockUpstream, model: str, *, stream: bool
) -> None:
    reset_when_idle(upstream)
    with connected(server_without_comments, model, stream=stream) as client:
        upstream.wait_until(lambda stats: stats["requests_open"] == 1)
        if stream and model.startswith(("fault-stall", "mock")):
            assert client.recv(1)
    upstream.wait_until(lambda stats: stats["requests_open"] == 0 and stats["requests_aborted"] == 1)


def count_finished_calls(server: LiveServer) -> int:
    """Count the access-log lines, one of which ends each call."""
    return server.log().count("POST /v1/chat/completions status=")


def test_a_hundred_disconnects_leave_no_upstream_request_open(server: LiveServer, upstream: MockUpstream) -> None:
    reset_when_idle(upstream)
    before = count_finished_calls(server)
    generator = random.Random(3)
    for _ in range(100):
        with connected(server, "mock-model:chunks=200,delay=0.005", stream=True) as client:
            client.settimeout(5)
            for _ in range(generator.randint(0, 5)):
                client.recv(generator.randint(1, 3000))
    upstream.wait_until(lambda stats: count_finished_calls(server) == before + 100 and stats["requests_open"] == 0)
    assert upstream.stats()["connections_open"] <= 1


def test_a_connected_client_is_not_taken_for_a_disconnected_one(server: LiveServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    for stream in (False, True, False):
        body = json.dumps({"model": "mock-model:delay=0.2,chunks=4", "messages": MESSAGES, "stream": stream})
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert (response.status, b'"stop"' in response.read()) == (200, True)
    connection.close()
