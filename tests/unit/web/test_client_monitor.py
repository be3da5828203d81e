"""Detection of client disconnects on real sockets."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from openai_compat.core.cancellation import CancellationToken
from openai_compat.web.client_monitor import DisconnectMonitor

TIMEOUT = 20
"""Seconds after which a test fails. Nothing here takes a second."""


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    server, client = socket.socketpair()
    with server, client:
        yield server, client


def wait_for_cancellation(cancellation: CancellationToken) -> bool:
    cancelled = threading.Event()
    cancellation.on_cancel(cancelled.set)
    return cancelled.wait(TIMEOUT)


class RecordingHandler(logging.Handler):
    """Handler that sets an event at the first record."""

    def __init__(self) -> None:
        super().__init__()
        self.has_record = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.has_record.set()


def test_a_disconnect_cancels_the_call(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    monitor, cancellation = DisconnectMonitor(), CancellationToken()
    monitor.add(server.fileno(), cancellation)
    client.close()
    assert wait_for_cancellation(cancellation)


def test_a_failed_poll_does_not_end_the_monitoring(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    monitor, invalid, good = DisconnectMonitor(), CancellationToken(), CancellationToken()
    logger, handler = logging.getLogger("openai_compat.web.client_monitor"), RecordingHandler()
    logger.addHandler(handler)
    monitor.add(-1, invalid)
    assert handler.has_record.wait(TIMEOUT)
    logger.removeHandler(handler)
    monitor.remove(-1, invalid)
    monitor.add(server.fileno(), good)
    client.close()
    assert wait_for_cancellation(good)


def test_a_failed_callback_does_not_end_the_monitoring(pair: tuple[socket.socket, socket.socket]) -> None:
    def fail() -> Any:
        raise RuntimeError("from a callback")

    server, client = pair
    with socket.socketpair()[0] as disconnected:  # the other end is closed at once
        monitor, failing, good = DisconnectMonitor(), CancellationToken(), CancellationToken()
        cancelled = threading.Event()
        failing.on_cancel(fail)
        failing.on_cancel(cancelled.set)  # called first
        monitor.add(disconnected.fileno(), failing)
        assert cancelled.wait(TIMEOUT)
        monitor.add(server.fileno(), good)
        client.close()
        assert wait_for_cancellation(good)


def test_the_end_of_a_call_does_not_end_the_monitoring_of_the_next_one_on_the_connection(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    server, client = pair
    monitor, first, second = DisconnectMonitor(), CancellationToken(), CancellationToken()
    monitor.add(server.fileno(), first)
    monitor.add(server.fileno(), second)
    monitor.remove(server.fileno(), first)
    client.close()
    assert wait_for_cancellation(second)
    assert not first.is_cancelled
