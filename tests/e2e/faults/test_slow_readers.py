"""Clients that do not read what they asked for, or send no more: what they cost, and when they are let go."""

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

READERS = 500
EVENT = b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":' + (
    b'{"content":"%s"},"finish_reason":null}]}\n\n' % (b"x" * 32_000)
)
MOST_BYTES = 400_000
"""What one stalled reader may hold in the worker: two blocks of 64 kB, their events, a greenlet, some slack."""


def pour(client: socket.socket) -> None:
    """An upstream that answers with a stream for as long as anybody takes it."""
    read_request(client)
    client.settimeout(None)
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        client.sendall(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))


@pytest.fixture
def source() -> Iterator[RawServer]:
    with RawServer(pour) as server:
        yield server


def unread_bytes(server: LiveServer) -> list[int]:
    """What the kernel holds for each of the server's clients."""
    own = f":{server.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(row[4].split(":")[0], 16) for row in rows if row[1].endswith(own) and row[3] == "01"]


def wait_until_still(server: LiveServer, clients: int) -> list[int]:
    """What is unread once nothing moves any more."""
    deadline, before = time.monotonic() + 40, list[int]()
    while len(now := sorted(unread_bytes(server))) < clients or now != before or not all(now):
        assert time.monotonic() < deadline, f"{len(now)} clients, {now.count(0)} of them without a byte, still moving"
        before = now
        time.sleep(0.5)
    return now


@pytest.mark.slow
def test_500_clients_that_do_not_read_cost_their_sockets_and_hold_up_nobody(source: RawServer) -> None:
    with LiveServer({"OPENAI_BASE_URL": f"{source.url}/v1"}) as server, ExitStack() as clients:
        worker = Worker(server)
        before = worker.proportional_bytes()
        for _ in range(READERS):
            client = clients.enter_context(connected(server, "m", stream=True))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        unread = wait_until_still(server, READERS)
        assert max(unread) < 2 * NOTSENT_LOWAT + len(EVENT)
        grown = (worker.proportional_bytes() - before) / READERS
        print(f"{grown / 1024:.0f} KiB each in the worker, {sum(unread) / READERS / 1024:.0f} KiB in the kernel")
        assert grown < MOST_BYTES
        with connected(server, "m", stream=True) as reader:
            received = 0
            while received < 10 * len(EVENT):
                received += len(reader.recv(262_144))


def test_a_client_that_reads_nothing_for_too_long_is_dropped(source: RawServer) -> None:
    settings = {"OPENAI_BASE_URL": f"{source.url}/v1", "CLIENT_WRITE_TIMEOUT": "0.5"}
    with LiveServer(settings) as server, connected(server, "m", stream=True) as client:
        deadline = time.monotonic() + 10
        while "a client that had read nothing for 0.5 s" not in server.log():
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.02)
        assert how_it_ends(client) == "reset", "an end could be taken for that of the answer"
        while "status=499" not in server.log():
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.02)


def test_a_client_that_reads_slowly_gets_all_of_a_large_answer() -> None:
    """It takes longer than the limit, which is for one silence."""
    body = b'{"choices":[],"filler":"%s"}' % (b"x" * 4_000_000)
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
            assert block, f"cut after {len(received)} bytes"
            received += block
        assert received.endswith(body)


# Half-closed clients: a FIN after the request, as some proxies send.


@pytest.fixture(scope="module")
def patient(upstream: MockUpstream) -> Iterator[LiveServer]:
    settings = {
        "OPENAI_BASE_URL": upstream.base_url,
        "HALF_CLOSE_IS_DISCONNECT": "false",
        "SSE_KEEPALIVE_SECONDS": "0.2",
    }
    with LiveServer(settings) as live:
        yield live


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_client_that_only_sends_no_more_gets_its_answer_where_that_is_set(
    patient: LiveServer, *, stream: bool
) -> None:
    with connected(patient, "mock-model:delay=0.2,chunks=6", stream=stream) as client:
        client.shutdown(socket.SHUT_WR)
        received = b""
        while block := client.recv(65536):
            received += block
    assert b'"stop"' in received
    assert received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") or not stream


def test_and_one_that_has_left_is_noticed_when_a_comment_finds_nobody(
    patient: LiveServer, upstream: MockUpstream
) -> None:
    upstream.wait_until(lambda stats: stats["requests_open"] == 0)
    upstream.reset()
    with connected(patient, "fault-stall", stream=True) as client:
        upstream.wait_until(lambda stats: stats["requests_open"] == 1)
        assert client.recv(1)
    left = time.monotonic()
    upstream.wait_until(lambda stats: stats["requests_open"] == 0 and stats["requests_aborted"] == 1)
    assert time.monotonic() - left < 2.0


def test_without_the_setting_it_counts_as_gone(server: LiveServer, upstream: MockUpstream) -> None:
    with connected(server, "mock-model:delay=0.2,chunks=50", stream=True) as client:
        assert client.recv(1)
        client.shutdown(socket.SHUT_WR)
        assert how_it_ends(client) != "whole"


def how_it_ends(client: socket.socket) -> str:
    received = b""
    try:
        while block := client.recv(262_144):
            received += block
    except ConnectionResetError:
        return "reset"
    return "whole" if received.endswith(b"0\r\n\r\n") else "cut"
