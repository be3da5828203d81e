"""Admission control with a bounded queue, and 503 with Retry-After beyond it."""

from __future__ import annotations

import json
import re
import select
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import requests

from tests.e2e.faults.test_streaming_rules import ask, connected, reset_when_idle
from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.waiting import wait_until

SLOTS = 2
HEALTH_CHECKS = ["/healthz", "/readyz", "/api/v1/healthcheck", "/v1/models"]


def small_server(upstream: MockUpstream, **settings: str) -> LiveServer:
    limits = {"MAX_CONCURRENT_REQUESTS": str(SLOTS), "MAX_QUEUED_REQUESTS": "1", "REQUEST_QUEUE_TIMEOUT": "20"}
    return LiveServer({"OPENAI_BASE_URL": upstream.base_url, **limits, **settings})


@pytest.fixture
def busy(upstream: MockUpstream) -> Iterator[tuple[LiveServer, ExitStack]]:
    """Yield a server whose slots are all occupied, and the stack that ends the calls in them."""
    reset_when_idle(upstream)
    with small_server(upstream) as server, ExitStack() as calls:
        for _ in range(SLOTS):
            calls.enter_context(connected(server, "fault-hang", stream=False))
        upstream.wait_until(lambda stats: stats["requests_open"] == SLOTS)
        yield server, calls


def call_until_rejected(server: LiveServer) -> requests.Response:
    """Return the response to the first call that found the queue full."""
    responses: list[requests.Response] = []

    def is_rejected() -> bool:
        body = {"model": "mock-model", "messages": [{"role": "user", "content": "hi"}]}
        with requests.Session() as session, suppress(requests.ReadTimeout):  # a call in the queue times out
            responses.append(session.post(f"{server.base_url}/chat/completions", json=body, timeout=0.5))
        return bool(responses)

    wait_until(is_rejected, "a call is rejected")
    return responses[0]


def test_calls_beyond_the_queue_are_rejected_and_health_checks_answer(busy: tuple[LiveServer, ExitStack]) -> None:
    server, _ = busy
    with connected(server, "mock-model", stream=True):
        rejected = call_until_rejected(server)
        assert (rejected.status_code, rejected.json()["error"]["code"]) == (503, "server_overloaded")
        assert rejected.headers["retry-after"] == "20"
        for path in HEALTH_CHECKS:
            assert requests.get(server.url + path, timeout=20).status_code == 200, path


def test_a_queued_call_is_answered_when_a_slot_becomes_free(busy: tuple[LiveServer, ExitStack]) -> None:
    server, calls = busy
    with connected(server, "mock-model", stream=True) as queued:
        assert call_until_rejected(server).status_code == 503
        assert not select.select([queued], [], [], 0)[0]
        calls.close()
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += queued.recv(65536)
        assert b"data: [DONE]\n\n" in received


def test_a_call_that_waits_too_long_gets_a_503(upstream: MockUpstream) -> None:
    reset_when_idle(upstream)
    with small_server(upstream, REQUEST_QUEUE_TIMEOUT="0.3") as server, ExitStack() as calls:
        for _ in range(SLOTS):
            calls.enter_context(connected(server, "fault-hang", stream=True))
        upstream.wait_until(lambda stats: stats["requests_open"] == SLOTS)
        rejected = ask(server, "mock-model")
        assert (rejected.status_code, rejected.headers["retry-after"]) == (503, "1")


ENDS = ["mock-model", "fault-status:code=500", "fault-reset", "fault-cut", "fault-bad-json", "fault-reset-before"]


def test_every_end_of_a_call_releases_its_slot(upstream: MockUpstream) -> None:
    """The server and the upstream have one slot each and no queue, so that a lost slot would be a 503."""
    one = {"MAX_CONCURRENT_REQUESTS": "1", "UPSTREAM_MAX_CONCURRENT": "1", "MAX_QUEUED_REQUESTS": "0"}
    with small_server(upstream, **one) as server:
        for stream in (True, False):
            for model in ENDS:
                with connected(server, model, stream=stream) as disconnecting:
                    disconnecting.recv(1)
                for _ in range(2):
                    assert ask_until_admitted(server, model, stream=stream).status_code != 503
        bad = requests.post(f"{server.base_url}/chat/completions", json={"model": 3}, timeout=5)
        assert bad.status_code == 400
        assert ask_until_admitted(server, "mock-model", stream=False).status_code == 200
        assert requests.get(f"{server.base_url}/files/none", timeout=5).status_code != 503
        page = {"messages": [{"role": "user", "content": "hi"}], "model": "mock-model"}
        for stream in (True, False, True):
            answer = requests.post(f"{server.url}/ask", json={**page, "stream": stream}, timeout=5)
            assert answer.status_code == 200, answer.text


def ask_until_admitted(server: LiveServer, model: str, *, stream: bool) -> requests.Response:
    """Repeat a call while it gets a 503. A disconnected client holds its slot until the server notices."""
    responses: list[requests.Response] = []

    def is_admitted() -> bool:
        responses.append(ask(server, model, stream=stream))
        return responses[-1].status_code != 503

    wait_until(is_admitted, f"a slot is free after {model}")
    return responses[-1]


SLOW_BODY = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n{"


def test_slow_bodies_hold_no_slot_and_are_refused_early_when_all_are_taken(upstream: MockUpstream) -> None:
    reset_when_idle(upstream)
    slow = [b"/v1/chat/completions", b"/v1/responses", b"/v1/embeddings", b"/v1/completions", b"/ask"]
    with small_server(upstream, MAX_QUEUED_REQUESTS="0") as server, ExitStack() as calls:
        for path in slow:
            client = calls.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
            client.sendall(SLOW_BODY % path)
        assert ask(server, "mock-model", stream=False).status_code == 200
        for _ in range(SLOTS):
            calls.enter_context(connected(server, "fault-hang", stream=False))
        upstream.wait_until(lambda stats: stats["requests_open"] == SLOTS)
        for path in slow:
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
                client.sendall(SLOW_BODY % path)
                assert b"The server is busy" in client.recv(65536), path


def test_many_large_bodies_at_once_take_limited_memory() -> None:
    """20 complete bodies of 20 MB, whose texts and values would take 1.2 GB if they were parsed side by side."""
    body = json.dumps({"messages": [{"role": "user", "content": "x" * 20_000_000}]})
    with LiveServer() as server, ThreadPoolExecutor(20) as threads:
        url, headers = f"{server.base_url}/chat/completions", {"Content-Type": "application/json"}
        calls = [threads.submit(requests.post, url, data=body, headers=headers, timeout=60) for _ in range(20)]
        statuses = {call.result().status_code for call in calls}
        (worker,) = server.workers()
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{worker}/status").read_text())
    assert statuses <= {400, 503}, "too long for the model, or too many at once"
    assert found is not None
    assert int(found[1]) < 400_000


def test_a_full_upstream_does_not_affect_other_models(upstream: MockUpstream, tmp_path: Path) -> None:
    reset_when_idle(upstream)
    models = tmp_path / "models.json"
    entry = {"kind": "openai", "base_url": upstream.base_url}
    small = {"name": "small", "upstream_model": "fault-hang", "max_concurrent": 1, **entry}
    models.write_text(json.dumps([small, {"name": "large", "upstream_model": "mock-model", **entry}]))
    settings = {"MODELS_FILE": str(models), "MAX_QUEUED_REQUESTS": "0"}
    with LiveServer(settings) as server, connected(server, "small", stream=True):
        upstream.wait_until(lambda stats: stats["requests_open"] == 1)
        rejected = ask(server, "small")
        assert (rejected.status_code, rejected.json()["error"]["code"]) == (503, "upstream_overloaded")
        assert rejected.headers["retry-after"] == "10"
        assert [ask(server, "large").status_code for _ in range(3)] == [200] * 3
