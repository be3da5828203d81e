"""Reuse and expiry of kept-alive connections, and repeated requests."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from requests.exceptions import ConnectionError

from openai_compat.backends.http.connection import Connection, Deadlines, Origin
from openai_compat.backends.http.pool import ConnectionPool
from openai_compat.backends.http.transport import LlhttpAdapter
from tests.support.raw_server import RawServer, Script, answer_with, read_request, wait_for_close

from .helpers import CHUNKED, OK, UNFINISHED, over_tls, read, record_into, send

ONE_BYTE = {"headers": {"Content-Length": "1"}, "body": b"x"}


WITH_KEY = {"headers": {"content-length": "1", "idempotency-key": "once"}, "body": b"x"}


def closes_after_the_second_request(client: socket.socket) -> None:
    """Close in order (FIN) after a request was read that gets no response."""
    read_request(client)
    client.sendall(OK)
    read_request(client)


def resets_after_the_second_request(client: socket.socket) -> None:
    closes_after_the_second_request(client)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hints_after_the_second_request(client: socket.socket) -> None:
    closes_after_the_second_request(client)
    client.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")


class ClosingWhileSending:
    """A script whose connection closes after the pool has checked it and before the next request is sent on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._is_reused = threading.Event()
        start = Connection.start

        def start_and_close(connection: Connection, *, is_head: bool) -> None:
            if connection.is_reused:
                self._is_reused.set()
                assert select.select([connection.sock], [], [], 20)[0], "the upstream did not close"
            start(connection, is_head=is_head)

        monkeypatch.setattr(Connection, "start", start_and_close)

    def __call__(self, client: socket.socket) -> None:
        read_request(client)
        client.sendall(OK)
        assert self._is_reused.wait(20)


def test_a_connection_is_reused_after_a_complete_response(adapter: LlhttpAdapter) -> None:
    with RawServer(answer_with(OK, CHUNKED, OK)) as server:
        assert [read(send(adapter, server.url)) for _ in range(3)] == [b"hello"] * 3
        assert server.connections == 1


def test_a_connection_is_not_reused_after_a_partly_read_response(adapter: LlhttpAdapter) -> None:
    with RawServer(answer_with(OK, OK)) as server:
        send(adapter, server.url).raw.close()
        assert read(send(adapter, server.url)) == b"hello"
        assert server.connections == 2


def test_a_released_response_waits_for_its_end_and_keeps_the_connection(adapter: LlhttpAdapter) -> None:
    def script(client: socket.socket) -> None:
        for _ in range(2):
            read_request(client)
            client.sendall(UNFINISHED)
            client.sendall(b"0\r\n\r\n")

    with RawServer(script) as server:
        for _ in range(2):
            raw = send(adapter, server.url).raw
            assert raw.read1() == b"hel"
            raw.release()
        assert server.connections == 1


def test_an_idle_connection_that_the_upstream_closed_is_replaced(adapter: LlhttpAdapter) -> None:
    is_closed = threading.Event()

    def script(client: socket.socket) -> None:
        read_request(client)
        client.sendall(OK)
        client.close()
        is_closed.set()

    with RawServer(script) as server:
        for _ in range(5):
            assert read(send(adapter, server.url, "POST", **ONE_BYTE)) == b"hello"
            assert is_closed.wait(20)
            is_closed.clear()
        assert server.connections == 5


def test_a_request_that_provably_arrived_too_late_is_sent_again(
    adapter: LlhttpAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines = Deadlines()
    requests: list[bytes] = []
    with RawServer(ClosingWhileSending(monkeypatch), record_into(requests)) as server:
        assert read(send(adapter, server.url)) == b"hello"
        assert read(send(adapter, server.url, "POST", timeout=deadlines, **ONE_BYTE)) == b"hello"
    assert len(requests) == 1
    assert deadlines.resends == ["127.0.0.1"]


def test_the_same_over_tls(adapter: LlhttpAdapter, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[bytes] = []
    scripts = [over_tls(certificate, script) for script in (ClosingWhileSending(monkeypatch), record_into(requests))]
    with RawServer(*scripts) as server:
        url = f"https://localhost:{server.port}"
        assert read(send(adapter, url, verify=str(certificate))) == b"hello"
        assert read(send(adapter, url, "POST", verify=str(certificate), **ONE_BYTE)) == b"hello"
    assert len(requests) == 1


@pytest.mark.parametrize(
    "script", [closes_after_the_second_request, resets_after_the_second_request, hints_after_the_second_request]
)
def test_a_request_that_the_upstream_may_have_worked_on_is_not_repeated(adapter: LlhttpAdapter, script: Script) -> None:
    with RawServer(script, answer_with(OK)) as server:
        assert read(send(adapter, server.url)) == b"hello"
        with pytest.raises(ConnectionError):
            send(adapter, server.url, "POST", **ONE_BYTE)
        assert server.connections == 1


@pytest.mark.parametrize("script", [closes_after_the_second_request, resets_after_the_second_request])
@pytest.mark.parametrize(("method", "request_"), [("GET", {}), ("POST", WITH_KEY)], ids=["GET", "idempotency key"])
def test_a_request_that_is_safe_to_repeat_is_sent_again(
    adapter: LlhttpAdapter, script: Script, method: str, request_: dict[str, object]
) -> None:
    deadlines = Deadlines()
    with RawServer(script, answer_with(OK)) as server:
        assert read(send(adapter, server.url, timeout=deadlines)) == b"hello"
        assert deadlines.resends == []
        assert read(send(adapter, server.url, method, timeout=deadlines, **request_)) == b"hello"
        assert server.connections == 2
    assert deadlines.resends == ["127.0.0.1"]


def test_a_repeatable_request_with_early_hints_is_not_repeated(adapter: LlhttpAdapter) -> None:
    with RawServer(hints_after_the_second_request, answer_with(OK)) as server:
        assert read(send(adapter, server.url)) == b"hello"
        with pytest.raises(ConnectionError):
            send(adapter, server.url, "POST", **WITH_KEY)


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


@pytest.mark.parametrize(
    ("scheme", "announced", "seconds"),
    [
        ("http", None, 4.0),
        ("https", None, 50.0),
        ("https", "timeout=5, max=200", 4.0),
        ("http", "timeout=600", 4.0),
        ("https", "max=5", 50.0),
        ("http+unix", "timeout = 2", 1.0),
    ],
)
def test_an_idle_connection_expires_before_the_upstream_closes_it(
    scheme: str, announced: str | None, seconds: float, sockets: tuple[socket.socket, socket.socket]
) -> None:
    connection = Connection(sockets[0], Origin(scheme, "upstream.test", 80, None))
    connection.headers = {} if announced is None else {"keep-alive": announced}
    before = time.monotonic()
    ConnectionPool(9).release(connection)
    assert connection.is_usable(before + seconds - 0.1)
    assert not connection.is_usable(time.monotonic() + seconds)


def test_a_request_that_must_not_be_sent_again_uses_a_new_connection(adapter: LlhttpAdapter) -> None:
    with RawServer(closes_after_the_second_request, answer_with(OK)) as server:
        assert read(send(adapter, server.url)) == b"hello"
        assert read(send(adapter, server.url, "POST", timeout=Deadlines(resends=None), **ONE_BYTE)) == b"hello"
        assert server.connections == 2, "it used the idle connection, on which it could not have been repeated"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_with_an_iterator_as_body_uses_a_new_connection(adapter: LlhttpAdapter, method: str) -> None:
    with RawServer(answer_with(OK, OK), answer_with(OK)) as server:
        assert read(send(adapter, server.url)) == b"hello"
        assert read(send(adapter, server.url, method, headers={"Content-Length": "2"}, body=iter([b"hi"]))) == b"hello"
        assert server.connections == 2


def test_a_post_without_a_body_uses_a_new_connection(adapter: LlhttpAdapter) -> None:
    with RawServer(closes_after_the_second_request, answer_with(OK)) as server:
        assert read(send(adapter, server.url)) == b"hello"
        assert read(send(adapter, server.url, "POST", headers={"Content-Length": "0"})) == b"hello"
        assert server.connections == 2, "it used the idle connection, on which it could not have been repeated"


@pytest.fixture
def short_idle_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai_compat.backends.http.pool.IDLE_TIMEOUT", 0.02)
    monkeypatch.setattr("openai_compat.backends.http.pool.REAP_INTERVAL", 0.01)


@pytest.mark.usefixtures("short_idle_timeout")
def test_idle_connections_are_closed_after_the_idle_timeout(adapter: LlhttpAdapter) -> None:
    is_closed = threading.Event()

    def script(client: socket.socket) -> None:
        read_request(client)
        client.sendall(OK)
        wait_for_close(client)
        is_closed.set()

    with RawServer(script) as server:
        assert read(send(adapter, server.url)) == b"hello"
        assert is_closed.wait(20)


@pytest.mark.usefixtures("short_idle_timeout")
def test_a_connection_that_fails_to_close_does_not_keep_others_open() -> None:
    is_closed = threading.Event()

    class Idle(Connection):
        def __init__(self, close: Callable[[], None]) -> None:
            self.origin = Origin("http", "upstream.test", 80, None)
            self.headers = {}
            self.close = close  # type: ignore[method-assign]

    def fail() -> None:
        raise RuntimeError("it cannot be closed")

    pool = ConnectionPool(9)
    pool.release(Idle(fail))
    pool.release(Idle(is_closed.set))
    assert is_closed.wait(20)
