"""Clients that read slowly or not at all, and clients that close their sending side."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from openai_compat.server.worker import NOTSENT_LOWAT
from tests.e2e.clients.test_many_streams import Worker
from tests.e2e.faults.test_streaming_rules import connected
from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.raw_server import RawServer, read_request
from tests.support.waiting import wait_until

READERS = 500
EVENT = b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":' + (
    b'{"content":"%s"},"finish_reason":null}]}\n\n' % (b"x" * 32_000)
)
MAX_BYTES = 400_000
"""Memory of the worker for one stalled client: two blocks of 64 kB, their events, a greenlet, and slack."""


def stream_endlessly(client: socket.socket) -> None:
    """Send an endless stream."""
    read_request(client)
    client.settimeout(None)
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        client.sendall(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))


@pytest.fixture
def source() -> Iterator[RawServer]:
    with RawServer(stream_endlessly) as server:
        yield server


def unread_bytes(server: LiveServer) -> list[int]:
    """Return the bytes in the send buffer of each client connection."""
    own = f":{server.port:04X}"
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(fields[4].split(":")[0], 16) for fields in sockets if fields[1].endswith(own) and fields[3] == "01"]


def wait_until_stalled(server: LiveServer, clients: int) -> list[int]:
    """Return the unread bytes of all clients once they have not changed for half a second."""
    samples: list[list[int]] = [[]]

    def is_stalled() -> bool:
        time.sleep(0.5)
        samples.append(sorted(unread_bytes(server)))
        return len(samples[-1]) >= clients and all(samples[-1]) and samples[-1] == samples[-2]

    wait_until(is_stalled, "all streams are stalled", 60)
    return samples[-1]


@pytest.mark.slow
def test_500_clients_that_do_not_read_cost_little_memory_and_do_not_block_others(source: RawServer) -> None:
    with LiveServer({"OPENAI_BASE_URL": f"{source.url}/v1"}) as server, ExitStack() as clients:
        worker = Worker(server)
        before = worker.proportional_bytes()
        for _ in range(READERS):
            client = clients.enter_context(connected(server, "m", stream=True))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        unread = wait_until_stalled(server, READERS)
        assert max(unread) < 2 * NOTSENT_LOWAT + len(EVENT)
        grown = (worker.proportional_bytes() - before) / READERS
        print(f"{grown / 1024:.0f} KiB each in the worker, {sum(unread) / READERS / 1024:.0f} KiB in the kernel")
        assert grown < MAX_BYTES
        with connected(server, "m", stream=True) as reader:
            received = 0
            while received < 10 * len(EVENT):
                received += len(reader.recv(262_144))


def test_a_client_that_does_not_read_is_reset_after_the_write_timeout(source: RawServer) -> None:
    settings = {"OPENAI_BASE_URL": f"{source.url}/v1", "CLIENT_WRITE_TIMEOUT": "0.5"}
    with LiveServer(settings) as server, connected(server, "m", stream=True) as client:
        wait_until(lambda: "a client that had read nothing for 0.5 s" in server.log(), server.log)
        assert read_to_end(client) == "reset", "a closed connection looks like the end of the answer"
        wait_until(lambda: "status=499" in server.log(), server.log)


def test_a_slow_client_gets_the_complete_answer() -> None:
    """The complete answer takes longer than the timeout, which limits only a single write."""
    choice = b'{"index":0,"message":{"role":"assistant","content":"%s"},"finish_reason":"stop"}' % (b"x" * 4_000_000)
    body = b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[%b]}' % choice
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    def script(client: socket.socket) -> None:
        read_request(client)
        client.sendall(answer)

    with (
        RawServer(script) as source,
        LiveServer({"OPENAI_BASE_URL": f"{source.url}/v1", "CLIENT_WRITE_TIMEOUT": "1"}) as server,
        connected(server, "m", stream=False) as client,
    ):
        received = b""
        while not received.endswith(body[-100:]):
            time.sleep(0.05)
            block = client.recv(100_000)
            assert block, f"closed after {len(received)} bytes"
            received += block
        assert received.endswith(body)


# Half-closed clients, which close their sending side after the request, as some proxies do.


@pytest.fixture(scope="module")
def half_close_server(upstream: MockUpstream) -> Iterator[LiveServer]:
    settings = {
        "OPENAI_BASE_URL": upstream.base_url,
        "HALF_CLOSE_IS_DISCONNECT": "false",
        "SSE_KEEPALIVE_SECONDS": "0.2",
    }
    with LiveServer(settings) as live:
        yield live


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "complete"])
def test_a_half_closed_client_gets_its_answer_if_half_close_is_no_disconnect(
    half_close_server: LiveServer, *, stream: bool
) -> None:
    with connected(half_close_server, "mock-model:delay=0.2,chunks=6", stream=stream) as client:
        client.shutdown(socket.SHUT_WR)
        received = b""
        while block := client.recv(65536):
            received += block
    assert b'"stop"' in received
    assert received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") or not stream


def test_a_disconnect_is_noticed_by_a_failed_write_if_half_close_is_no_disconnect(
    half_close_server: LiveServer, upstream: MockUpstream
) -> None:
    upstream.wait_until(lambda stats: stats["requests_open"] == 0)
    upstream.reset()
    with connected(half_close_server, "fault-stall", stream=True) as client:
        upstream.wait_until(lambda stats: stats["requests_open"] == 1)
        assert client.recv(1)
    upstream.wait_until(lambda stats: stats["requests_open"] == 0 and stats["requests_aborted"] == 1)


def test_a_half_close_is_a_disconnect_by_default(server: LiveServer) -> None:
    with connected(server, "mock-model:delay=0.2,chunks=2000", stream=True) as client:
        assert client.recv(1)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) != "complete"


def read_to_end(client: socket.socket) -> str:
    """Return how the response ended."""
    received = b""
    try:
        while block := client.recv(262_144):
            received += block
    except ConnectionResetError:
        return "reset"
    return "complete" if received.endswith(b"0\r\n\r\n") else "truncated"
