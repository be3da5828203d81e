"""Circuit breakers on live servers: which calls open a circuit, and what those do that are under way meanwhile."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.raw_server import RawServer, read_request

CALLS = 20
STATE_AGE = 0.1
"""Twice the age in seconds of the state that a worker may use."""
CHUNK = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m",
         "choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}]}  # fmt: skip
COMPLETION = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [
    {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]}  # fmt: skip


def response(status: str, body: str, *headers: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers])
    return f"{head}\r\n\r\n{body}".encode()


def broken_stream(code: str) -> bytes:
    """Return a stream whose first content is followed by an error event."""
    events = (CHUNK, {"error": {"message": "boom", "type": "x", "param": None, "code": code}})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return response("200 OK", body, "Content-Type: text/event-stream")


class Upstream:
    """An upstream that answers by the prompt. `hold` waits for `is_down`, and `received` counts the prompts."""

    def __init__(self) -> None:
        self.is_down = threading.Event()
        self.received: list[str] = []

    def serve(self, client: socket.socket) -> None:
        while True:
            body = json.loads(read_request(client).partition(b"\r\n\r\n")[2])
            prompt = body["messages"][0]["content"]
            self.received.append(prompt)
            if prompt == "hold":
                self.is_down.wait(20)
            client.sendall(self.answer(prompt))

    @staticmethod
    def answer(prompt: str) -> bytes:
        if prompt == "hold":
            return response("503 Service Unavailable", "{}")
        if prompt == "down":
            return response("503 Service Unavailable", "{}", "x-should-retry: false")
        if prompt == "plain":
            return response("200 OK", json.dumps(COMPLETION), "Content-Type: application/json")
        return broken_stream(prompt)


@pytest.fixture(scope="module")
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture(scope="module")
def server(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with RawServer(upstream.serve) as raw:
        route = {"kind": "openai", "base_url": f"{raw.url}/v1", "fallbacks": ["spare"], "retries": 2, "cooldown": 60}
        models = [
            {"name": "onset", "api_key_env": "KEY", **route},
            {"name": "callers-key", **route},
            {"name": "our-key", "api_key_env": "KEY", **route},
            {"name": "failing", "api_key_env": "KEY", **route},
            {"name": "spare", "kind": "echo"},
        ]
        path = tmp_path_factory.mktemp("breaker") / "models.json"
        path.write_text(json.dumps(models))
        with LiveServer({"MODELS_FILE": str(path), "KEY": "k"}, workers=2) as live:
            yield live


def ask(server: LiveServer, model: str, prompt: str, *, stream: bool = False, key: str = "sk-1") -> requests.Response:
    return requests.post(
        f"{server.base_url}/chat/completions",
        json={"model": model, "messages": [{"role": "user", "content": prompt}], "stream": stream},
        headers={"Authorization": f"Bearer {key}"},
        timeout=30,
    )


def upstream_of(answer: requests.Response) -> str:
    return answer.headers["x-openai-compat-upstream"]


def test_calls_that_are_under_way_at_the_onset_of_an_outage_do_not_retry(
    server: LiveServer, upstream: Upstream
) -> None:
    with ThreadPoolExecutor(CALLS) as callers:
        answers = [callers.submit(ask, server, "onset", "hold") for _ in range(CALLS)]
        while upstream.received.count("hold") < CALLS:
            time.sleep(0.01)
        assert upstream_of(ask(server, "onset", "down")) == "spare"  # it opens the circuit
        time.sleep(STATE_AGE)
        upstream.is_down.set()
        assert {upstream_of(answer.result()) for answer in answers} == {"spare"}
    assert upstream.received.count("hold") == CALLS


@pytest.mark.parametrize(
    ("model", "code"),
    [("callers-key", "rate_limit_exceeded"), ("callers-key", "invalid_api_key"), ("our-key", "content_filter")],
)
def test_an_error_event_about_one_call_does_not_open_the_circuit(server: LiveServer, model: str, code: str) -> None:
    for _ in range(4):
        stream = ask(server, model, code, stream=True, key="sk-poor")
        assert (stream.status_code, upstream_of(stream)) == (200, model)
        assert "boom" in stream.text
        assert "[DONE]" not in stream.text
    time.sleep(STATE_AGE)
    others = [ask(server, model, "plain", key="sk-rich") for _ in range(8)]
    assert {upstream_of(answer) for answer in others} == {model}


def test_an_error_event_about_an_outage_opens_the_circuit(server: LiveServer) -> None:
    assert "boom" in ask(server, "failing", "rate_limit_exceeded", stream=True).text
    time.sleep(STATE_AGE)
    assert {upstream_of(ask(server, "failing", "plain")) for _ in range(8)} == {"spare"}
