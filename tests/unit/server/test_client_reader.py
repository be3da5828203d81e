"""Time limits on what a client sends, on real sockets. `tests/e2e/faults/test_slow_requests.py` tests the server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from openai_compat.core.errors import RequestTimeoutError
from openai_compat.server import client_reader
from openai_compat.server.client_reader import ClientReader, ReadLimits


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    server, client = socket.socketpair()
    with server, client:
        yield server, client


def drip(client: socket.socket) -> threading.Event:
    """Send a byte every 10 ms until the event is set or the reader is closed."""
    stopped = threading.Event()

    def run() -> None:
        while not stopped.wait(0.01):
            client.sendall(b"x")

    threading.Thread(target=run, daemon=True).start()
    return stopped


@pytest.mark.parametrize("is_dripping", [False, True], ids=["silent", "dripping"])
def test_the_rest_of_a_body_is_discarded_for_a_limited_time(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, *, is_dripping: bool
) -> None:
    monkeypatch.setattr(client_reader, "DRAIN_SECONDS", 0.2 if is_dripping else 60.0)
    monkeypatch.setattr(client_reader, "DRAIN_IDLE_SECONDS", 60.0 if is_dripping else 0.2)
    reader = ClientReader(pair[0], ReadLimits())
    reader.begin_drain()
    stopped = drip(pair[1]) if is_dripping else threading.Event()
    with pytest.raises(RequestTimeoutError):
        list(iter(reader.chunk, b""))
    stopped.set()


def test_time_in_which_the_server_does_not_read_is_not_the_clients(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload waits for its upstream while the clock goes on by ten seconds."""
    now = [0.0]
    reader = ClientReader(pair[0], ReadLimits(body_timeout=1.0))
    monkeypatch.setattr(client_reader.time, "monotonic", lambda: now[0])
    reader.phase = client_reader.REQUEST
    for _ in range(10):
        pair[1].sendall(b"block")
        assert reader.chunk() == b"block"
        now[0] += 10
