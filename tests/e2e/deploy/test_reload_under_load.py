"""200 streams through nginx and this server, during a reload of both, and with all clients disconnecting at once."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import requests

from tests.e2e.clients.stream_swarm import HEAD
from tests.support.live_server import ROOT, LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.nginx import Nginx, nginx_in_front_of

STREAMS = 200
CHUNKS = 80
STREAMED = f"mock-model:chunks={CHUNKS},delay=0.05"


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        yield mock


@pytest.fixture(scope="module")
def server(upstream: MockUpstream) -> Iterator[LiveServer]:
    with LiveServer({"OPENAI_BASE_URL": upstream.base_url}, workers=2) as live:
        yield live


@pytest.fixture(scope="module")
def nginx(server: LiveServer) -> Iterator[Nginx]:
    with nginx_in_front_of(server.url) as front:
        yield front


def test_a_reload_of_the_server_and_nginx_breaks_none_of_200_streams(
    nginx: Nginx, server: LiveServer, upstream: MockUpstream
) -> None:
    upstream.reset()
    old_workers = server.workers()
    command = [sys.executable, "-m", "tests.e2e.clients.stream_swarm", str(nginx.port), str(STREAMS), STREAMED, "hi"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as swarm:
        upstream.wait_until(lambda stats: stats["requests_open"] == STREAMS)
        server.process.send_signal(signal.SIGHUP)
        nginx.process.send_signal(signal.SIGHUP)
        requests_sent = 0
        while swarm.poll() is None:
            assert requests.get(f"{nginx.url}/v1/models/mock-model", timeout=20).status_code == 200
            requests_sent += 1
            time.sleep(0.02)  # leaves CPU to the streams
        assert swarm.stdout is not None
        result = json.load(swarm.stdout)
    assert result["problems"] == []
    assert result["chunks"] == [CHUNKS] * STREAMS
    assert upstream.stats()["requests_aborted"] == 0
    assert requests_sent > 5
    assert server.workers() - old_workers, "the server was not reloaded"


LONG_CALLS = [
    pytest.param("mock-model:chunks=10000,delay=0.05", True, id="within the stream"),
    pytest.param("fault-hang", True, id="before the first token"),
    pytest.param("fault-hang-headers", False, id="not streamed"),
]


@pytest.mark.parametrize(("model", "stream"), LONG_CALLS)
def test_200_disconnects_abort_all_upstream_requests(
    nginx: Nginx, upstream: MockUpstream, model: str, stream: bool
) -> None:
    upstream.wait_until(lambda stats: stats["requests_open"] == 0)
    upstream.reset()
    message = {"role": "user", "content": "hi"}
    body = json.dumps({"model": model, "messages": [message], "stream": stream}).encode()
    with ExitStack() as clients:
        for _ in range(STREAMS):
            client = clients.enter_context(socket.create_connection(nginx.address, timeout=10))
            client.sendall(HEAD % len(body) + body)
        upstream.wait_until(lambda stats: stats["requests_open"] == STREAMS)
    stats = upstream.wait_until(lambda stats: stats["requests_open"] == 0)
    assert stats["requests_aborted"] == STREAMS
