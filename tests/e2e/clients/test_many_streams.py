"""500 streams of 100 chunks at once through one worker, and 100 that are left at random points."""

from __future__ import annotations

import json
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clients.stream_swarm import HEAD
from tests.support.live_server import ROOT, LiveServer
from tests.support.mock_upstream import MockUpstream

STREAMS = 500
CHUNKS = 100
DELAY = 0.03
"""Seconds between two chunks: so long that the first stream still runs when the last begins."""
MOST_GROWTH = 3 * 1024 * 1024
"""Bytes that the worker may grow by in a second round: what an allocator does not give back at once."""
FEW = 10
"""Files more or less: a connection may be on its way up or down while they are counted."""
NOTICED_SECONDS = 5.0
"""One, and what a busy machine adds: a call that is not noticed at all lasts for minutes."""
MOMENT_SECONDS = 1.0
"""So long somebody who leaves waits for an event that may not come: by then a busy server has begun to answer."""


class Worker:
    """The only worker process of a server, as the kernel sees it."""

    def __init__(self, server: LiveServer) -> None:
        master = server.process.pid
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        assert len(children) == 1
        self._proc = Path("/proc", children[0])

    def proportional_bytes(self) -> int:
        """Its memory: PSS, in which what is shared with the master counts by half."""
        lines = (self._proc / "smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))

    def open_files(self) -> int:
        return len(list((self._proc / "fd").iterdir()))


def swarm(server: LiveServer, model: str, text: str) -> dict[str, Any]:
    """What came of `STREAMS` streams, read by a process of their own."""
    command = [sys.executable, "-m", "tests.e2e.clients.stream_swarm", str(server.port), str(STREAMS), model, text]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def wait_until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def running_mock() -> Iterator[MockUpstream]:
    """One that no other server has connections to: they are counted here."""
    with MockUpstream() as upstream:
        yield upstream


@pytest.fixture
def mock(running_mock: MockUpstream) -> MockUpstream:
    running_mock.reset()
    return running_mock


@pytest.fixture(scope="module")
def server(running_mock: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with a slow echo model beside the upstream's: one goes the typed path, the other is forwarded."""
    models = tmp_path_factory.mktemp("models") / "models.json"
    models.write_text(json.dumps([{"name": "slow-echo", "kind": "echo", "delay": DELAY}]))
    with LiveServer({"OPENAI_BASE_URL": running_mock.base_url, "MODELS_FILE": str(models)}) as server:
        yield server


@pytest.mark.slow
@pytest.mark.timeout(300)  # 100,000 events, twice: on a busy machine they take their time
@pytest.mark.parametrize(
    ("model", "text"),
    [(f"mock-model:chunks={CHUNKS},delay={DELAY}", "hello"), ("slow-echo", "a" + " a" * (CHUNKS - 1))],
    ids=["forwarded", "typed"],
)
def test_all_streams_are_whole_and_nothing_is_left(
    server: LiveServer, mock: MockUpstream, model: str, text: str
) -> None:
    worker = Worker(server)
    own_files = worker.open_files() - mock.stats()["connections_open"]

    def run_round() -> int:
        result = swarm(server, model, text)
        for _ in range(2):
            if not result["all_at_once"]:  # on a busy machine the last may begin when the first has ended
                result = swarm(server, model, text)
        assert result["problems"] == []
        assert result["chunks"] == [CHUNKS] * STREAMS
        assert result["all_at_once"], "the streams did not overlap: nothing was tested"
        stats = mock.wait_until(lambda stats: stats["requests_open"] == 0)
        assert stats["requests_aborted"] == 0
        # What is still open are the connections that are kept for the next request: no client's is among them.
        wait_until(
            lambda: worker.open_files() - mock.stats()["connections_open"] < own_files + FEW,
            5,
            "the clients' connections are closed",
        )
        assert mock.stats()["connections_open"] <= STREAMS
        return worker.proportional_bytes()

    after_first = run_round()
    connections = mock.stats()["connections_total"]
    after_second = run_round()
    print(f"{model}: {after_first / 2**20:.1f} MiB, then {after_second / 2**20:.1f} MiB")
    assert after_second - after_first < MOST_GROWTH
    assert mock.stats()["connections_total"] <= connections + STREAMS // 10, "the kept connections are not used"


@pytest.mark.parametrize("seed", range(3))
def test_streams_that_are_left_at_random_points_leave_nothing_behind(
    server: LiveServer, mock: MockUpstream, seed: int
) -> None:
    chance = random.Random(seed)
    plans = [
        (
            chance.choice(
                ["mock-model:chunks=200,delay=0.01", "fault-stall:after=5", "fault-hang-headers", "fault-hang"]
            ),
            chance.randrange(5) if chance.random() < 0.5 else chance.randrange(30),
            chance.random() < 0.5,
        )
        for _ in range(100)
    ]
    lines_before = finished_calls(server)
    with ThreadPoolExecutor(100) as pool:
        list(pool.map(lambda plan: leave(server, *plan), plans))
    mock.wait_until(lambda stats: stats["requests_open"] == 0, NOTICED_SECONDS)
    wait_until(lambda: finished_calls(server) == lines_before + 100, 10, "all calls are over")
    stats = mock.stats()
    assert stats["requests_open"] == 0
    assert stats["requests_aborted"] > 50, "most of them were being answered when they were left"


def finished_calls(server: LiveServer) -> int:
    return server.log().count(" POST /v1/chat/completions status=")


def leave(server: LiveServer, model: str, events: int, is_reset: bool) -> None:
    """Asks for a stream, reads so many events of it, or as many as come within a moment, and hangs up."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": True}).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=MOMENT_SECONDS) as connection:
        if is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(HEAD % len(body) + body)
        received = b""
        try:
            while received.count(b"\n\n") < events and (block := connection.recv(4096)):
                received += block
        except TimeoutError:
            pass
