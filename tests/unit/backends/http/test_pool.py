"""Reuse and expiry of kept-alive connections, and repeated requests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest
from requests.exceptions import ConnectionError

from openai_compat.backends.http.pool import Connection, ConnectionPool, Deadlines, Origin
from openai_compat.backends.http.transport import LlhttpAdapter
from tests.support.raw_server import RawServer, answer_with, read_request, wait_for_close

from .helpers import CHUNKED, OK, UNFINISHED, read, send

ONE_BYTE = {"headers": {"Content-Length": "1"}, "body": b"x"}


def closes_after_the_second_request(client: socket.socket) -> None:
    read_request(client)
    client.sendall(OK)
    read_request(client)


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
    with RawServer(answer_with(OK)) as server:
        for _ in range(5):
            assert read(send(adapter, server.url, "POST", **ONE_BYTE)) == b"hello"


def test_a_request_on_a_reused_connection_that_closes_is_repeated(adapter: LlhttpAdapter) -> None:
    with RawServer(closes_after_the_second_request, answer_with(OK)) as server:
        assert read(send(adapter, server.url)) == b"hello"
        assert read(send(adapter, server.url, "POST", **ONE_BYTE)) == b"hello"
        assert server.connections == 2


@pytest.mark.parametrize(
    ("stale_window", "interim"),
    [(0.0, b""), (60.0, b"HTTP/1.1 103 Early Hints\r\n\r\n")],
    ids=["after the stale window", "after early hints"],
)
def test_a_request_that_the_upstream_may_have_worked_on_is_not_repeated(
    adapter: LlhttpAdapter, monkeypatch: pytest.MonkeyPatch, stale_window: float, interim: bytes
) -> None:
    monkeypatch.setattr("openai_compat.backends.http.transport.STALE_WINDOW", stale_window)

    def script(client: socket.socket) -> None:
        closes_after_the_second_request(client)
        client.sendall(interim)

    with RawServer(script, answer_with(OK)) as server:
        assert read(send(adapter, server.url)) == b"hello"
        with pytest.raises(ConnectionError):
            send(adapter, server.url, "POST", **ONE_BYTE)
        assert server.connections == 1


def test_a_request_that_is_sent_again_is_recorded(adapter: LlhttpAdapter) -> None:
    deadlines = Deadlines()
    with RawServer(closes_after_the_second_request, answer_with(OK)) as server:
        assert read(send(adapter, server.url, timeout=deadlines)) == b"hello"
        assert deadlines.resends == []
        assert read(send(adapter, server.url, "POST", timeout=deadlines, **ONE_BYTE)) == b"hello"
        assert deadlines.resends == ["127.0.0.1"]


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
            self.close = close  # type: ignore[method-assign]

    def fail() -> None:
        raise RuntimeError("it cannot be closed")

    pool = ConnectionPool(9)
    pool.release(Idle(fail))
    pool.release(Idle(is_closed.set))
    assert is_closed.wait(20)
