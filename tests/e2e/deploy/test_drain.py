"""A stop and a reload let running streams finish; docs/guides/deployment.md counts on it."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.support.live_server import LiveServer

WORDS = 20
QUESTION = {"stream": True, "messages": [{"role": "user", "content": " ".join(["word"] * WORDS)}]}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    """Its model takes a second for an answer."""
    models = tmp_path / "models.json"
    models.write_text(json.dumps([{"name": "slow", "kind": "echo", "delay": 0.05}]))
    with LiveServer({"MODELS_FILE": str(models)}) as server:
        yield server


def ask(server: LiveServer) -> requests.Response:
    return requests.post(f"{server.base_url}/chat/completions", json=QUESTION, stream=True, timeout=10)


def open_stream(server: LiveServer) -> Iterator[str]:
    """The lines of a stream that has begun."""
    reply = ask(server)
    lines = reply.iter_lines(decode_unicode=True)
    assert '"role":"assistant"' in next(lines)
    return lines


def assert_is_whole(lines: Iterator[str]) -> None:
    events = [line for line in lines if line]
    assert sum("word" in event for event in events) == WORDS
    assert events[-1] == "data: [DONE]"


def test_a_stop_waits_for_running_streams_and_not_for_longer(server: LiveServer) -> None:
    lines = open_stream(server)
    server.process.send_signal(signal.SIGTERM)
    assert_is_whole(lines)
    stopped_at = time.monotonic()
    assert server.process.wait(10) == 0
    assert time.monotonic() - stopped_at < 5


def test_a_reload_reads_the_models_anew_cuts_no_stream_and_refuses_no_request(
    server: LiveServer, tmp_path: Path
) -> None:
    lines = open_stream(server)
    (tmp_path / "models.json").write_text(json.dumps([{"name": "new", "kind": "echo"}]))
    server.process.send_signal(signal.SIGHUP)
    until, latest, seen = time.monotonic() + 1.5, time.monotonic() + 20, ""
    while time.monotonic() < until or (seen != "new" and time.monotonic() < latest):
        assert requests.get(f"{server.url}/healthz", timeout=5).status_code == 200
        seen = requests.get(f"{server.base_url}/models", timeout=5).json()["data"][0]["id"]
        time.sleep(0.02)
    assert seen == "new"
    assert_is_whole(lines)


def test_a_reload_of_a_wrong_models_file_changes_nothing_and_says_why(server: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "models.json").write_text(json.dumps([{"name": "new", "kind": "ecko"}]))
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 10
    while "unknown kind 'ecko'" not in server.log():
        assert time.monotonic() < deadline, server.log()
    assert requests.get(f"{server.base_url}/models", timeout=5).json()["data"][0]["id"] == "slow"


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[LiveServer]:
    """A server whose answers take longer than it gives them at a stop."""
    models = tmp_path / "models.json"
    models.write_text(json.dumps([{"name": "slow", "kind": "echo", "delay": 0.5}]))
    with LiveServer({"MODELS_FILE": str(models), "GRACEFUL_TIMEOUT": "1"}) as server:
        yield server


def test_a_stream_that_still_runs_at_the_end_of_the_time_is_told_why_it_ends(hasty: LiveServer) -> None:
    lines = open_stream(hasty)
    hasty.process.send_signal(signal.SIGTERM)
    *_, last = (line for line in lines if line)
    error = json.loads(last.removeprefix("data: "))["error"]
    assert (error["type"], error["code"]) == ("server_error", "server_shutting_down")
    assert hasty.process.wait(10) == 0, "it was killed"


def test_a_whole_answer_that_is_not_there_at_the_end_of_the_time_is_a_503_to_be_tried_again(hasty: LiveServer) -> None:
    with ThreadPoolExecutor(1) as pool:
        body = {**QUESTION, "stream": False}
        asked = pool.submit(requests.post, f"{hasty.base_url}/chat/completions", json=body, timeout=20)
        wait_until(lambda: descriptors_of(hasty) == 1, "the request has come")
        hasty.process.send_signal(signal.SIGTERM)
        answer = asked.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "server_shutting_down")
    assert answer.headers["retry-after"] == "1"
    assert "x-should-retry" not in answer.headers


def test_idle_connections_do_not_hold_up_a_stop(server: LiveServer) -> None:
    """One has had an answer, one has never asked: gunicorn waits 75 s for either."""
    with requests.Session() as session, socket.create_connection(("127.0.0.1", server.port)) as silent:
        assert session.get(f"{server.url}/healthz", timeout=10).status_code == 200
        wait_until(lambda: descriptors_of(server) == 2, "both are accepted")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        assert silent.recv(1) == b""


def test_a_connection_that_is_used_learns_from_its_answer_that_it_was_the_last(server: LiveServer) -> None:
    """Closed under its hands, a request that is just being sent would be lost."""
    lines = open_stream(server)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        client.sendall(ask)
        assert b"keep-alive" in client.recv(65536).lower()
        server.process.send_signal(signal.SIGTERM)
        answer = b""
        while b"connection: close" not in answer:  # until the worker has heard of it
            client.sendall(ask)
            answer = client.recv(65536).lower()
            assert answer.startswith(b"http/1.1 200 "), answer
        assert client.recv(1) == b""
    assert_is_whole(lines)


def test_a_stop_is_heard_while_a_reload_is_still_under_way(tmp_path: Path) -> None:
    """gunicorn's master would wait for the old worker's streams first, and then give the new ones as long again."""
    models = tmp_path / "models.json"
    models.write_text(json.dumps([{"name": "slow", "kind": "echo", "delay": 1}]))
    with LiveServer({"MODELS_FILE": str(models)}) as server:
        reply = ask(server)
        old = server.workers()
        models.write_text(json.dumps([{"name": "new", "kind": "echo"}]))
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: b'"new"' in requests.get(f"{server.base_url}/models", timeout=5).content, "a new worker")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_listening(server), "no connection is taken")
        assert server.workers() & old
        lines = (line for line in reply.iter_lines(decode_unicode=True) if "word" in line)
        assert next(lines), "the stream goes on"
        reply.close()
        assert server.process.wait(10) == 0


def test_a_worker_that_is_killed_takes_only_its_own_streams(tmp_path: Path) -> None:
    models = tmp_path / "models.json"
    models.write_text(json.dumps([{"name": "slow", "kind": "echo", "delay": 0.15}]))
    with LiveServer({"MODELS_FILE": str(models)}, workers=2) as server:
        with ExitStack() as connections:  # until both have begun to take some
            wait_until(lambda: connect_once_more(connections, server) == 2, "two workers")
        streams = []
        while not all((served := connections_of(server)).values()):
            assert len(streams) < 100, "one worker takes all of them"
            streams.append(open_stream(server))
        victim, lost = min(served.items(), key=lambda item: item[1])
        os.kill(victim, signal.SIGKILL)
        ends = [how_it_ends(lines) for lines in streams]
        assert sorted(ends) == ["broken"] * lost + ["whole"] * (len(streams) - lost)
        wait_until(lambda: len(server.workers() - {victim}) == 2, "another takes its place")
        assert requests.get(f"{server.url}/healthz", timeout=10).status_code == 200


def test_a_worker_that_recycles_itself_cuts_nothing_and_leaves_no_gap(tmp_path: Path) -> None:
    """gunicorn would start the next one when the last stream of this one is over."""
    models = tmp_path / "models.json"
    models.write_text(json.dumps([{"name": "slow", "kind": "echo", "delay": 0.2}]))
    environment = {"MODELS_FILE": str(models), "GUNICORN_CMD_ARGS": "--max-requests 5"}
    with LiveServer(environment) as server:
        (first,) = server.workers()
        lines = open_stream(server)
        for _ in range(5):
            assert requests.get(f"{server.url}/healthz", timeout=5).status_code == 200
        wait_until(lambda: len(server.workers()) == 2, "its successor has started")
        assert requests.get(f"{server.url}/healthz", timeout=5).status_code == 200
        assert first in server.workers(), "the stream was to run still"
        assert_is_whole(lines)
        wait_until(lambda: first not in server.workers(), "the old worker has ended")
        assert len(server.workers()) == 1


def connections_of(server: LiveServer) -> dict[int, int]:
    """How many each worker holds."""
    return {worker: descriptors_of(server, worker) for worker in server.workers()}


def connect_once_more(connections: ExitStack, server: LiveServer) -> int:
    """How many workers hold any of the connections that were made so far."""
    connections.enter_context(socket.create_connection(("127.0.0.1", server.port)))
    return sum(held > 0 for held in connections_of(server).values())


def descriptors_of(server: LiveServer, worker: int | None = None) -> int:
    """How many connections of clients a worker holds: one with the server's port at its own end."""
    (worker,) = [worker] if worker else server.workers()
    own = f":{server.port:04X}"
    table = [line.split() for line in Path(f"/proc/{worker}/net/tcp").read_text().splitlines()[1:]]
    accepted = {row[9] for row in table if row[1].endswith(own) and row[3] == "01"}
    held = [str(link.readlink()) for link in Path(f"/proc/{worker}/fd").iterdir() if link.is_symlink()]
    return sum(name[8:-1] in accepted for name in held if name.startswith("socket:["))


def is_listening(server: LiveServer) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
    except OSError:
        return False
    return True


def how_it_ends(lines: Iterator[str]) -> str:
    try:
        assert_is_whole(lines)
    except requests.exceptions.ChunkedEncodingError:
        return "broken"
    return "whole"


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
