"""Graceful shutdown, reload and replacement of workers, which let running streams finish."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.slow_stream_server import STORY
from tests.support.waiting import wait_until

QUESTION = {"stream": True, "messages": [{"role": "user", "content": "word " * 2000}]}
GRACE_PERIOD = 600
"""Seconds for which the server waits for streams, longer than any wait here."""


class Models:
    """The models file of a server. Its model streams until `end_streams`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "models.json"
        self._end = folder / "end"
        self.write(name="slow", kind="tests.support.slow_stream_server:SlowStreamBackend", until=str(self._end))

    def write(self, **entry: object) -> None:
        self.path.write_text(json.dumps([{"delay": 0.002, **entry} if entry["name"] == "slow" else entry]))

    def end_streams(self) -> None:
        self._end.touch()

    def server(self, *, workers: int = 1, **settings: str) -> LiveServer:
        settings = {"MODELS_FILE": str(self.path), "GRACEFUL_TIMEOUT": str(GRACE_PERIOD), **settings}
        return LiveServer(settings, workers=workers)


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path)


@pytest.fixture
def server(models: Models) -> Iterator[LiveServer]:
    with models.server() as server:
        yield server


def ask(server: LiveServer) -> requests.Response:
    return requests.post(f"{server.base_url}/chat/completions", json=QUESTION, stream=True, timeout=20)


def open_stream(server: LiveServer) -> Iterator[str]:
    """Start a stream, and return its lines after the first."""
    lines: Iterator[str] = ask(server).iter_lines(decode_unicode=True)
    assert '"role":"assistant"' in next(lines)
    return lines


def assert_is_complete(lines: Iterator[str]) -> None:
    *events, end = [line.removeprefix("data: ") for line in lines if line]
    assert end == "[DONE]"
    choices = [json.loads(event)["choices"][0] for event in events]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    assert text.replace(STORY + "\n", "") == ""
    assert choices[-1]["finish_reason"] == "stop"


def listed_model(server: LiveServer) -> str:
    model: str = requests.get(f"{server.base_url}/models", timeout=20).json()["data"][0]["id"]
    return model


def test_a_shutdown_waits_for_running_streams_only(server: LiveServer, models: Models) -> None:
    lines = open_stream(server)
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not is_listening(server), "the server accepts no connection")
    models.end_streams()
    assert_is_complete(lines)
    assert server.process.wait(60) == 0


def test_a_reload_reads_the_models_file_and_breaks_neither_streams_nor_requests(
    server: LiveServer, models: Models
) -> None:
    lines = open_stream(server)
    (old,) = server.workers()
    models.write(name="new", kind="echo")
    server.process.send_signal(signal.SIGHUP)

    def is_reloaded() -> bool:
        assert requests.get(f"{server.url}/healthz", timeout=20).status_code == 200
        return listed_model(server) == "new"

    wait_until(is_reloaded, "the new model is listed")
    assert old in server.workers()
    models.end_streams()
    assert_is_complete(lines)
    wait_until(lambda: is_reloaded() and old not in server.workers(), "the old worker has ended")


def test_a_reload_of_an_invalid_models_file_changes_nothing_and_logs_the_error(
    server: LiveServer, models: Models
) -> None:
    models.write(name="new", kind="ecko")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "unknown kind 'ecko'" in server.log(), server.log)
    assert listed_model(server) == "slow"


@pytest.fixture
def server_with_short_grace_period(models: Models) -> Iterator[LiveServer]:
    """Yield a server whose answer takes minutes. Its model is one that can be cancelled."""
    models.write(name="minutes", kind="echo", delay=0.1)
    with models.server(GRACEFUL_TIMEOUT="1") as server:
        yield server


def test_a_stream_that_outlasts_the_grace_period_ends_with_an_error(server_with_short_grace_period: LiveServer) -> None:
    lines = open_stream(server_with_short_grace_period)
    server_with_short_grace_period.process.send_signal(signal.SIGTERM)
    *_, last = (line for line in lines if line)
    error = json.loads(last.removeprefix("data: "))["error"]
    assert (error["type"], error["code"]) == ("server_error", "server_shutting_down")
    assert server_with_short_grace_period.process.wait(60) == 0, "it was killed"


def test_a_call_that_outlasts_the_grace_period_gets_a_503_with_retry_after(
    server_with_short_grace_period: LiveServer,
) -> None:
    server = server_with_short_grace_period
    with ThreadPoolExecutor(1) as pool:
        body = {**QUESTION, "stream": False}
        call = pool.submit(requests.post, f"{server.base_url}/chat/completions", json=body, timeout=20)
        wait_until(lambda: count_connections(server) == 1, "the request has arrived")
        server.process.send_signal(signal.SIGTERM)
        answer = call.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "server_shutting_down")
    assert answer.headers["retry-after"] == "1"
    assert "x-should-retry" not in answer.headers


def test_idle_connections_do_not_delay_a_shutdown(server: LiveServer) -> None:
    """One connection has had an answer, and one has sent nothing. gunicorn waits 75 s for both."""
    with requests.Session() as session, socket.create_connection(("127.0.0.1", server.port)) as silent:
        assert session.get(f"{server.url}/healthz", timeout=20).status_code == 200
        wait_until(lambda: count_connections(server) == 2, "both connections are accepted")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert silent.recv(1) == b""


def test_a_connection_in_use_ends_with_a_response_that_says_so(server: LiveServer, models: Models) -> None:
    """If the server just closed it, a request that is being sent would be lost."""
    lines = open_stream(server)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        client.sendall(request)
        assert b"keep-alive" in client.recv(65536).lower()
        server.process.send_signal(signal.SIGTERM)
        answer = b""
        while b"connection: close" not in answer:  # until the signal reaches the worker
            client.sendall(request)
            answer = client.recv(65536).lower()
            assert answer.startswith(b"http/1.1 200 "), answer
        assert client.recv(1) == b""
    models.end_streams()
    assert_is_complete(lines)


def test_a_shutdown_during_a_reload_waits_for_the_streams_of_the_old_worker_only_once(models: Models) -> None:
    """gunicorn's master would first wait for the old worker, and then as long again for the new one."""
    with models.server() as server:
        lines = open_stream(server)
        old = server.workers()
        models.write(name="new", kind="echo")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: listed_model(server) == "new", "a new worker answers")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_listening(server), "the server accepts no connection")
        assert server.workers() & old
        assert next(line for line in lines if "content" in line), "the stream continues"
        models.end_streams()
        assert_is_complete_tail(lines)
        assert server.process.wait(60) == 0


def assert_is_complete_tail(lines: Iterator[str]) -> None:
    assert [line for line in lines if line][-1] == "data: [DONE]"


def test_a_killed_worker_breaks_only_its_own_streams(models: Models) -> None:
    with models.server(workers=2) as server:
        with ExitStack() as connections:  # until both workers accept connections
            wait_until(lambda: count_workers_after_one_more(connections, server) == 2, "two workers")
        streams = []
        while not all((held := connections_of(server)).values()):
            assert len(streams) < 100, "one worker accepts all connections"
            streams.append(open_stream(server))
        victim, lost = min(held.items(), key=lambda item: item[1])
        os.kill(victim, signal.SIGKILL)
        models.end_streams()
        ends = [read_to_end(lines) for lines in streams]
        assert sorted(ends) == ["broken"] * lost + ["complete"] * (len(streams) - lost)
        wait_until(lambda: len(server.workers() - {victim}) == 2, "the master has started another worker")
        assert requests.get(f"{server.url}/healthz", timeout=20).status_code == 200


def test_a_recycled_worker_breaks_no_stream_and_its_successor_starts_first(models: Models) -> None:
    """gunicorn would start the successor only after the last stream of the old worker."""
    with models.server(GUNICORN_CMD_ARGS="--max-requests 5") as server:
        (first,) = server.workers()
        lines = open_stream(server)
        for _ in range(5):
            assert requests.get(f"{server.url}/healthz", timeout=20).status_code == 200
        wait_until(lambda: len(server.workers()) == 2, "the successor has started")
        assert requests.get(f"{server.url}/healthz", timeout=20).status_code == 200
        assert first in server.workers(), "the old worker still streams"
        models.end_streams()
        assert_is_complete(lines)
        wait_until(lambda: first not in server.workers(), "the old worker has ended")
        assert len(server.workers()) == 1


def connections_of(server: LiveServer) -> dict[int, int]:
    """Return the number of client connections of each worker."""
    return {worker: count_connections(server, worker) for worker in server.workers()}


def count_workers_after_one_more(connections: ExitStack, server: LiveServer) -> int:
    """Open one more connection, and return how many workers have accepted any."""
    connections.enter_context(socket.create_connection(("127.0.0.1", server.port)))
    return sum(held > 0 for held in connections_of(server).values())


def count_connections(server: LiveServer, worker: int | None = None) -> int:
    """Return how many client connections a worker holds, which are those on the server's port."""
    (worker,) = [worker] if worker else server.workers()
    own = f":{server.port:04X}"
    table = [line.split() for line in Path(f"/proc/{worker}/net/tcp").read_text().splitlines()[1:]]
    accepted = {fields[9] for fields in table if fields[1].endswith(own) and fields[3] == "01"}
    descriptors = [str(link.readlink()) for link in Path(f"/proc/{worker}/fd").iterdir() if link.is_symlink()]
    return sum(name[8:-1] in accepted for name in descriptors if name.startswith("socket:["))


def is_listening(server: LiveServer) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
    except OSError:
        return False
    return True


def read_to_end(lines: Iterator[str]) -> str:
    try:
        assert_is_complete(lines)
    except requests.exceptions.ChunkedEncodingError:
        return "broken"
    return "complete"


def test_the_folders_of_a_killed_server_are_removed_at_the_next_start() -> None:
    with TemporaryDirectory(dir="/tmp") as name:  # a short path, as sockets need it
        settings = {"TMPDIR": name}
        folder = Path(name)
        with LiveServer(settings) as killed:
            left = set(folder.iterdir())
            workers = killed.workers()
            for process in (killed.process.pid, *workers):
                os.kill(process, signal.SIGKILL)
            wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), "the workers ended")
            with LiveServer(settings):
                present = set(folder.iterdir())
        assert [path.exists() for path in left] == [False, False]
        assert len(present) == 2
        assert not list(folder.iterdir())
