"""500 streams of 50 chunks at once through one worker, and 100 clients that disconnect at random points."""

from __future__ import annotations

import json
import random
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clients.stream_swarm import HEAD
from tests.support.live_server import ROOT, LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.waiting import wait_until

STREAMS = 500
CHUNKS = 50
DELAY = 0.06
"""Seconds between two chunks, so that the first stream still runs when the last one starts."""
MAX_GROWTH = 3 * 1024 * 1024
"""Bytes by which the worker may grow in a second round, which its allocator has not freed yet."""
MAX_EXTRA_FILES = 10
"""Connections that may be opening or closing while files are counted."""
READ_TIMEOUT = 1.0
"""Seconds for which a client waits for an event before it disconnects, as some models send none."""


class Worker:
    """The worker process of a server with one worker, as the kernel reports it."""

    def __init__(self, server: LiveServer) -> None:
        master = server.process.pid
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        assert len(children) == 1
        self._proc = Path("/proc", children[0])

    def proportional_bytes(self) -> int:
        """Return the PSS, in which memory shared with the master counts by half."""
        lines = (self._proc / "smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))

    def open_files(self) -> int:
        return len(list((self._proc / "fd").iterdir()))


def swarm(server: LiveServer, model: str, text: str) -> dict[str, Any]:
    """Run `STREAMS` streams in another process, and return the results."""
    command = [sys.executable, "-m", "tests.e2e.clients.stream_swarm", str(server.port), str(STREAMS), model, text]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def running_mock() -> Iterator[MockUpstream]:
    """Yield a mock upstream of this module only, because its connections are counted."""
    with MockUpstream() as upstream:
        yield upstream


@pytest.fixture
def mock(running_mock: MockUpstream) -> MockUpstream:
    running_mock.reset()
    return running_mock


@pytest.fixture(scope="module")
def server(running_mock: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Yield a server with a slow echo model, whose answers are translated, and forwarded models."""
    models = tmp_path_factory.mktemp("models") / "models.json"
    models.write_text(json.dumps([{"name": "slow-echo", "kind": "echo", "delay": DELAY}]))
    with LiveServer({"OPENAI_BASE_URL": running_mock.base_url, "MODELS_FILE": str(models)}) as server:
        yield server


@pytest.mark.slow
@pytest.mark.timeout(300)  # 50,000 events
@pytest.mark.parametrize(
    ("model", "text"),
    [(f"mock-model:chunks={CHUNKS},delay={DELAY}", "hello"), ("slow-echo", "a" + " a" * (CHUNKS - 1))],
    ids=["forwarded", "translated"],
)
def test_all_streams_are_complete_and_leave_no_resources_behind(
    server: LiveServer, mock: MockUpstream, model: str, text: str
) -> None:
    worker = Worker(server)
    own_files = worker.open_files() - mock.stats()["connections_open"]

    def run_round() -> int:
        result = swarm(server, model, text)
        for _ in range(2):
            if not result["all_at_once"]:  # on a busy machine the last stream may start after the first has ended
                result = swarm(server, model, text)
        assert result["problems"] == []
        assert result["chunks"] == [CHUNKS] * STREAMS
        assert result["all_at_once"], "the streams did not overlap"
        stats = mock.wait_until(lambda stats: stats["requests_open"] == 0)
        assert stats["requests_aborted"] == 0
        # Idle upstream connections stay open. Those of clients do not.
        wait_until(
            lambda: worker.open_files() - mock.stats()["connections_open"] < own_files + MAX_EXTRA_FILES,
            "the clients' connections are closed",
        )
        assert mock.stats()["connections_open"] <= STREAMS
        return worker.proportional_bytes()

    after_first = run_round()
    connections = mock.stats()["connections_total"]
    after_second = run_round()
    print(f"{model}: {after_first / 2**20:.1f} MiB, then {after_second / 2**20:.1f} MiB")
    assert after_second - after_first < MAX_GROWTH
    assert mock.stats()["connections_total"] <= connections + STREAMS // 10, "idle connections are not reused"


@pytest.mark.parametrize("seed", range(3))
def test_disconnects_at_random_points_leave_no_upstream_request_open(
    server: LiveServer, mock: MockUpstream, seed: int
) -> None:
    generator = random.Random(seed)
    plans = [
        (
            generator.choice(
                ["mock-model:chunks=200,delay=0.01", "fault-stall:after=5", "fault-hang-headers", "fault-hang"]
            ),
            generator.randrange(5) if generator.random() < 0.5 else generator.randrange(30),
            generator.random() < 0.5,
        )
        for _ in range(100)
    ]
    lines_before = finished_calls(server)
    with ThreadPoolExecutor(100) as pool:
        list(pool.map(lambda plan: stream_and_disconnect(server, *plan), plans))
    mock.wait_until(lambda stats: stats["requests_open"] == 0)
    wait_until(lambda: finished_calls(server) == lines_before + 100, "all calls have ended")
    stats = mock.stats()
    assert stats["requests_open"] == 0
    assert stats["requests_aborted"] > 50, "most calls were in progress when their clients disconnected"


def finished_calls(server: LiveServer) -> int:
    return server.log().count(" POST /v1/chat/completions status=")


def stream_and_disconnect(server: LiveServer, model: str, events: int, is_reset: bool) -> None:
    """Request a stream, read up to `events` of it, and disconnect.

    A reset comes after the first event at the earliest. Before that the kernel may discard the request itself.
    """
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": True}).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=READ_TIMEOUT) as connection:
        if is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(HEAD % len(body) + body)
        received = b""
        try:
            while received.count(b"\n\n") < max(events, is_reset) and (block := connection.recv(4096)):
                received += block
        except TimeoutError:
            pass
