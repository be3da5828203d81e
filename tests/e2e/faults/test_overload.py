"""More requests than there is room for: a queue with bounds, then a 503 that says when to come again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.e2e.faults.test_streaming_rules import ask, connected, start_count
from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream

PLACES = 2
PROBES = ["/healthz", "/readyz", "/api/v1/healthcheck", "/v1/models"]


def small_server(upstream: MockUpstream, **settings: str) -> LiveServer:
    room = {"MAX_CONCURRENT_REQUESTS": str(PLACES), "MAX_QUEUED_REQUESTS": "1", "REQUEST_QUEUE_TIMEOUT": "20"}
    return LiveServer({"OPENAI_BASE_URL": upstream.base_url, **room, **settings})


@pytest.fixture
def busy(upstream: MockUpstream) -> Iterator[tuple[LiveServer, ExitStack]]:
    """A server all of whose places are taken by calls that get no answer; closing the stack ends these."""
    start_count(upstream)
    with small_server(upstream) as server, ExitStack() as calls:
        for _ in range(PLACES):
            calls.enter_context(connected(server, "fault-hang", stream=False))
        upstream.wait_until(lambda stats: stats["requests_open"] == PLACES)
        yield server, calls


def wait_for_a_refusal(server: LiveServer) -> requests.Response:
    """What the first call gets that finds the queue full."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with requests.Session() as session:
            try:
                body = {"model": "mock-model", "messages": [{"role": "user", "content": "hi"}]}
                return session.post(f"{server.base_url}/chat/completions", json=body, timeout=0.5)
            except requests.ReadTimeout:  # it was the one in the queue, and has left it now
                continue
    raise AssertionError("every call was let in")


def test_one_beyond_waits_and_the_next_is_refused_while_the_probes_answer(busy: tuple[LiveServer, ExitStack]) -> None:
    server, _ = busy
    with connected(server, "mock-model", stream=True):
        refused = wait_for_a_refusal(server)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_overloaded")
        assert refused.headers["retry-after"] == "20"
        assert [requests.get(server.url + path, timeout=5).status_code for path in PROBES] == [200] * len(PROBES)


def test_who_waits_gets_its_answer_when_a_place_becomes_free(busy: tuple[LiveServer, ExitStack]) -> None:
    server, calls = busy
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, server, "mock-model")
        time.sleep(0.1)
        assert not waiting.done()
        calls.close()
        assert waiting.result(10).content.endswith(b"data: [DONE]\n\n")


def test_who_waits_too_long_gets_a_503(upstream: MockUpstream) -> None:
    start_count(upstream)
    with small_server(upstream, REQUEST_QUEUE_TIMEOUT="0.3") as server, ExitStack() as calls:
        for _ in range(PLACES):
            calls.enter_context(connected(server, "fault-hang", stream=True))
        upstream.wait_until(lambda stats: stats["requests_open"] == PLACES)
        refused = ask(server, "mock-model")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


ENDS = ["mock-model", "fault-status:code=500", "fault-reset", "fault-cut", "fault-bad-json", "fault-reset-before"]


def test_every_way_in_which_a_call_ends_gives_its_place_back(upstream: MockUpstream) -> None:
    """The server's, and the upstream's: with one place each, and nobody waiting, one lost place would be a 503."""
    one = {"MAX_CONCURRENT_REQUESTS": "1", "UPSTREAM_MAX_CONCURRENT": "1", "MAX_QUEUED_REQUESTS": "0"}
    with small_server(upstream, **one) as server:
        for stream in (True, False):
            for model in ENDS:
                with connected(server, model, stream=stream) as left_at_once:
                    left_at_once.recv(1)
                for _ in range(2):
                    assert wait_for_a_place(server, model, stream=stream).status_code != 503
        bad = requests.post(f"{server.base_url}/chat/completions", json={"model": 3}, timeout=5)
        assert bad.status_code == 400
        assert wait_for_a_place(server, "mock-model", stream=False).status_code == 200
        assert requests.get(f"{server.base_url}/files/none", timeout=5).status_code != 503
        page = {"messages": [{"role": "user", "content": "hi"}], "model": "mock-model"}
        for stream in (True, False, True):
            answer = requests.post(f"{server.url}/ask", json={**page, "stream": stream}, timeout=5)
            assert answer.status_code == 200, answer.text


def wait_for_a_place(server: LiveServer, model: str, *, stream: bool) -> requests.Response:
    """A client that has just left holds its place until that is noticed."""
    deadline = time.monotonic() + 20
    while (answer := ask(server, model, stream=stream)).status_code == 503:
        assert time.monotonic() < deadline, f"a place was lost with {model}"
    return answer


def test_an_upstream_that_is_full_refuses_alone(upstream: MockUpstream, tmp_path: Path) -> None:
    start_count(upstream)
    models = tmp_path / "models.json"
    row = {"kind": "openai", "base_url": upstream.base_url}
    small = {"name": "small", "upstream_model": "fault-hang", "max_concurrent": 1, **row}
    models.write_text(json.dumps([small, {"name": "large", "upstream_model": "mock-model", **row}]))
    settings = {"MODELS_FILE": str(models), "MAX_QUEUED_REQUESTS": "0"}
    with LiveServer(settings) as server, connected(server, "small", stream=True):
        upstream.wait_until(lambda stats: stats["requests_open"] == 1)
        refused = ask(server, "small")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "upstream_overloaded")
        assert refused.headers["retry-after"] == "10"
        assert [ask(server, "large").status_code for _ in range(3)] == [200] * 3
