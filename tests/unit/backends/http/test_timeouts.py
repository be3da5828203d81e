"""Timeouts and heartbeats. The servers stall for good, so the results do not depend on the speed of the machine."""

from __future__ import annotations

import socket
import time

import pytest
from requests.exceptions import ConnectTimeout, ReadTimeout

from openai_compat.backends.http import connect
from openai_compat.backends.http.connection import Deadlines
from openai_compat.backends.http.transport import LlhttpAdapter
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.timeouts import Timeouts
from tests.support.raw_server import RawServer, answer_with, read_request, wait_for_close

from .helpers import OK, UNFINISHED, read, send, stalled_after


def test_the_first_byte_timeout(adapter: LlhttpAdapter) -> None:
    with stalled_after(b"") as server, pytest.raises(ReadTimeout):
        send(adapter, server.url, timeout=Deadlines(Timeouts(first_byte=0.1)))


@pytest.mark.parametrize("timeouts", [Timeouts(idle=0.1), Timeouts(idle=0, total=0.1)], ids=["idle", "total"])
@pytest.mark.parametrize("heartbeat_interval", [0.0, 0.03])
def test_the_idle_and_the_total_timeout(adapter: LlhttpAdapter, timeouts: Timeouts, heartbeat_interval: float) -> None:
    with stalled_after(UNFINISHED) as server:
        raw = send(adapter, server.url, timeout=Deadlines(timeouts, CancellationToken(), heartbeat_interval)).raw
        assert raw.read1() == b"hel"
        with pytest.raises(ReadTimeout):
            all(raw.read1() is None for _ in range(100))


def dripping(first: bytes, piece: bytes, pause: float = 0.01) -> RawServer:
    """Return a server that answers with `first` and then sends `piece` again and again, up to 20 s."""

    def script(client: socket.socket) -> None:
        read_request(client)
        client.sendall(first)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            client.sendall(piece)
            time.sleep(pause)

    return RawServer(script)


@pytest.mark.parametrize("timeouts", [Timeouts(first_byte=0.2), Timeouts(total=0.2)], ids=["first byte", "total"])
@pytest.mark.parametrize(
    ("first", "piece"),
    [(b"HTTP/1.1 200 OK\r\nX-A: ", b"a"), (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n")],
    ids=["head", "interim responses"],
)
def test_the_head_of_a_response_arrives_within_the_limits_although_it_drips(
    adapter: LlhttpAdapter, timeouts: Timeouts, first: bytes, piece: bytes
) -> None:
    with dripping(first, piece) as server, pytest.raises(ReadTimeout):
        send(adapter, server.url, timeout=Deadlines(timeouts))


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "piece", "pause"),
    [
        (HEAD, b"1\r\na\r\n", 0.0),
        (HEAD + b"5;", b"a", 0.01),
        (HEAD + b"0\r\nX-A: ", b"a", 0.01),
        (HEAD + b"0\r\n", b"X: a\r\n", 0.01),
    ],
    ids=["body without a pause", "chunk extension", "trailer", "trailers"],
)
def test_the_total_timeout_holds_although_data_arrives(
    adapter: LlhttpAdapter, first: bytes, piece: bytes, pause: float
) -> None:
    with dripping(first, piece, pause) as server:
        response = send(adapter, server.url, timeout=Deadlines(Timeouts(total=0.2)))
        with pytest.raises(ReadTimeout):
            read(response)


def test_the_total_timeout_limits_an_upstream_that_reads_slowly(adapter: LlhttpAdapter) -> None:
    def script(client: socket.socket) -> None:
        for _ in range(2000):
            client.recv(4096)
            time.sleep(0.01)

    with RawServer(script) as server, pytest.raises(ReadTimeout):
        send(adapter, server.url, "POST", body=bytes(64_000_000), timeout=Deadlines(Timeouts(idle=5, total=0.3)))


def test_an_idle_gap_is_reported_before_the_idle_timeout(adapter: LlhttpAdapter) -> None:
    with stalled_after(UNFINISHED) as server:
        raw = send(adapter, server.url, timeout=Deadlines(Timeouts(), CancellationToken(), 0.02)).raw
        assert [raw.read1(), raw.read1(), raw.read1()] == [b"hel", None, None]
        raw.close()


def test_the_wait_for_the_end_can_begin_again_but_not_exceed_the_total_timeout(adapter: LlhttpAdapter) -> None:
    with stalled_after(UNFINISHED) as server:
        raw = send(adapter, server.url, timeout=Deadlines(Timeouts(), CancellationToken(), 0.02)).raw
        assert raw.read1() == b"hel"
        raw.limit_remaining(0)
        raw.limit_remaining(60)
        assert raw.read1() is None
        raw.limit_remaining(0)
        with pytest.raises(ReadTimeout):
            raw.read1()
        raw = send(adapter, server.url, timeout=Deadlines(Timeouts(total=0.1), CancellationToken(), 0.02)).raw
        assert raw.read1() == b"hel"
        raw.limit_remaining(60)
        with pytest.raises(ReadTimeout):
            all(raw.read1() is None for _ in range(100))


def test_the_connect_timeout_includes_the_tls_handshake(adapter: LlhttpAdapter) -> None:
    with RawServer(wait_for_close) as server, pytest.raises(ConnectTimeout):
        send(adapter, server.url.replace("http:", "https:"), timeout=Deadlines(Timeouts(connect=0.2)))


def resolve_to(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Let every host name resolve to one address for each port."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_arguments, **_options: found)


def test_an_unresponsive_address_leaves_time_for_the_next(
    adapter: LlhttpAdapter, unresponsive_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(answer_with(OK)) as server:
        resolve_to(monkeypatch, unresponsive_port, server.port)
        response = send(adapter, "http://upstream.test/", timeout=Deadlines(Timeouts(connect=0.5)))
        assert read(response) == b"hello"


def test_all_addresses_share_the_connect_timeout(adapter: LlhttpAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each attempt use all of its time. Only the test advances the clock."""
    now = 1000.0
    attempts: list[float] = []

    def time_out(_connector: object, _address: object, _verify: object, connect_by: float) -> socket.socket:
        nonlocal now
        attempts.append(connect_by)
        now = connect_by
        raise TimeoutError

    monkeypatch.setattr(connect.time, "monotonic", lambda: now)
    monkeypatch.setattr(connect._Connector, "connect", time_out)
    resolve_to(monkeypatch, *range(1, 5))
    with pytest.raises(ConnectTimeout):
        send(adapter, "http://upstream.test/", timeout=Deadlines(Timeouts(connect=8.0)))
    assert attempts == pytest.approx([1002.0, 1004.0, 1006.0, 1008.0])
