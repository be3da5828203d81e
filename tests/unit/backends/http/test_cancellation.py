"""Cancellation in each step of a call, from the connect to the body.

Timeouts are long, so a call that ends without one has been ended by its cancellation.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from requests.exceptions import ChunkedEncodingError, ConnectionError, ConnectTimeout

from openai_compat.backends.http.connection import Deadlines
from openai_compat.backends.http.transport import LlhttpAdapter
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import CallCancelledError
from openai_compat.core.timeouts import Timeouts
from tests.support.raw_server import RawServer, Script, read_request, wait_for_close

from .helpers import UNFINISHED, over_tls, read, send, stalled_after


@pytest.fixture
def cancellation() -> CancellationToken:
    return CancellationToken()


@pytest.fixture
def is_closed() -> threading.Event:
    """Set when the server of a test has noticed that its client closed the connection."""
    return threading.Event()


@pytest.fixture
def cancels_after(cancellation: CancellationToken, is_closed: threading.Event) -> Callable[..., Script]:
    """Return a maker of scripts that read with `receive`, cancel the call and wait for its connection to close."""

    def make(receive: Callable[[socket.socket], bytes]) -> Script:
        def script(client: socket.socket) -> None:
            receive(client)
            cancellation.cancel()
            wait_for_close(client)
            is_closed.set()

        return script

    return make


def assert_is_cancelled(adapter: LlhttpAdapter, url: str, cancellation: CancellationToken, **options: object) -> None:
    timeouts = Timeouts(connect=60, first_byte=60, idle=60)
    with pytest.raises((ConnectionError, ChunkedEncodingError, CallCancelledError)) as caught:
        read(send(adapter, url, timeout=Deadlines(timeouts, cancellation), **options))
    assert cancellation.is_cancelled
    assert not isinstance(caught.value, ConnectTimeout)
    assert not cancellation._callbacks


def receive_some(client: socket.socket) -> bytes:
    return client.recv(1000)


def test_during_the_connect(adapter: LlhttpAdapter, unresponsive_port: int, cancellation: CancellationToken) -> None:
    threading.Timer(0.1, cancellation.cancel).start()
    assert_is_cancelled(adapter, f"http://127.0.0.1:{unresponsive_port}/", cancellation)


def test_during_the_tls_handshake(
    adapter: LlhttpAdapter, cancellation: CancellationToken, cancels_after: Callable[..., Script]
) -> None:
    with RawServer(cancels_after(receive_some)) as server:
        assert_is_cancelled(adapter, server.url.replace("http:", "https:"), cancellation)


def test_while_a_proxy_opens_a_tunnel(
    adapter: LlhttpAdapter, cancellation: CancellationToken, cancels_after: Callable[..., Script]
) -> None:
    with RawServer(cancels_after(read_request)) as server:
        assert_is_cancelled(adapter, "https://upstream.test/", cancellation, proxies={"https": server.url})


def test_before_the_first_byte(
    adapter: LlhttpAdapter,
    cancellation: CancellationToken,
    cancels_after: Callable[..., Script],
    is_closed: threading.Event,
) -> None:
    with RawServer(cancels_after(read_request)) as server:
        assert_is_cancelled(adapter, server.url, cancellation)
        assert is_closed.wait(20)


def test_before_the_first_byte_over_tls(
    adapter: LlhttpAdapter,
    cancellation: CancellationToken,
    cancels_after: Callable[..., Script],
    certificate: Path,
) -> None:
    with RawServer(over_tls(certificate, cancels_after(read_request))) as server:
        url = f"https://localhost:{server.port}/"
        assert_is_cancelled(adapter, url, cancellation, verify=str(certificate))


@pytest.mark.parametrize("uses_tls", [False, True], ids=["plain", "TLS"])
def test_during_the_body(
    adapter: LlhttpAdapter,
    cancellation: CancellationToken,
    certificate: Path,
    is_closed: threading.Event,
    uses_tls: bool,
) -> None:
    def script(client: socket.socket) -> None:
        read_request(client)
        client.sendall(UNFINISHED)
        wait_for_close(client)
        is_closed.set()

    with RawServer(over_tls(certificate, script) if uses_tls else script) as server:
        url = f"https://localhost:{server.port}/" if uses_tls else server.url
        raw = send(adapter, url, timeout=Deadlines(Timeouts(), cancellation), verify=str(certificate)).raw
        assert raw.read1() == b"hel"
        threading.Timer(0.05, cancellation.cancel).start()
        with pytest.raises(ChunkedEncodingError):
            raw.read1()
        assert is_closed.wait(20)
    assert not cancellation._callbacks


def test_a_cancelled_close_delimited_response_is_not_taken_for_complete(
    adapter: LlhttpAdapter, cancellation: CancellationToken
) -> None:
    with stalled_after(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhel") as server:
        raw = send(adapter, server.url, timeout=Deadlines(Timeouts(), cancellation)).raw
        assert raw.read1() == b"hel"
        threading.Timer(0.05, cancellation.cancel).start()
        with pytest.raises(ChunkedEncodingError):
            raw.read1()


def test_all_of_it_under_gevent() -> None:
    """Run this module, and those on connections and timeouts, with patched sockets and threads, as in a worker."""
    code = "from gevent import monkey; monkey.patch_all(); import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    here = Path(__file__).parent
    modules = [str(here / name) for name in ("test_cancellation.py", "test_connect.py", "test_timeouts.py")]
    command = [sys.executable, "-c", code, *modules, "-k", "not under_gevent", "-p", "no:cacheprovider", "-q"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
