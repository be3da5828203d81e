"""Clients that leave, on real sockets."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from openai_compat.core.cancellation import CancellationToken
from openai_compat.web.client_monitor import DisconnectMonitor


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    server, client = socket.socketpair()
    with server, client:
        yield server, client


def wait_until(holds: Callable[[], bool], seconds: float = 3.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds()


def test_a_client_that_leaves_is_noticed(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    watch, cancellation = DisconnectMonitor(), CancellationToken()
    watch.add(server.fileno(), cancellation)
    client.close()
    assert wait_until(lambda: cancellation.is_cancelled)


def test_one_failure_does_not_end_the_watch(
    pair: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    """Else no client of the worker's life would be missed any more."""
    server, client = pair
    watch, bad, good = DisconnectMonitor(), CancellationToken(), CancellationToken()
    with caplog.at_level(logging.ERROR, "openai_compat"):
        watch.add(-1, bad)
        assert wait_until(lambda: bool(caplog.records))
    watch.remove(-1, bad)
    watch.add(server.fileno(), good)
    client.close()
    assert wait_until(lambda: good.is_cancelled)


def test_a_callback_that_fails_does_not_either(pair: tuple[socket.socket, socket.socket]) -> None:
    def fail() -> Any:
        raise RuntimeError("a callback's fault")

    server, client = pair
    with socket.socketpair()[0] as gone:  # its peer is gone at once
        watch, failing, good = DisconnectMonitor(), CancellationToken(), CancellationToken()
        failing.on_cancel(fail)
        watch.add(gone.fileno(), failing)
        assert wait_until(lambda: failing.is_cancelled)
        watch.add(server.fileno(), good)
        client.close()
        assert wait_until(lambda: good.is_cancelled)


def test_the_end_of_a_call_leaves_the_next_one_of_the_connection_watched(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    server, client = pair
    watch, first, second = DisconnectMonitor(), CancellationToken(), CancellationToken()
    watch.add(server.fileno(), first)
    watch.add(server.fileno(), second)
    watch.remove(server.fileno(), first)
    client.close()
    assert wait_until(lambda: second.is_cancelled)
    assert not first.is_cancelled
