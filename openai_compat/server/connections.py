"""Open client connections of a worker, and which of them are closed when slots get scarce or the worker stops."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from heapq import nsmallest
from typing import Final

from gevent.monkey import get_original

from openai_compat.core.errors import ServerShuttingDownError

from .client_reader import DRAIN, REQUEST, ClientReader, ReadLimits, shutdown_socket

RESERVED_CONNECTIONS: Final = 64
"""Connections beyond the limit that are accepted so that health checks are answered."""
BATCH_FRACTION: Final = 64
"""One of this many connections is closed at a time, because a search reads all of them."""
IDLE_GRACE: Final = 1.0
"""Seconds for which a connection must be idle to be closed by a draining worker.

A connection in use is closed after its next response, which announces it, as a request may already be on its way.
"""
BODY_GRACE: Final = 3.0
"""Seconds that a draining worker waits for a request body at least."""
DRAINING_RATE: Final = 65_536.0
"""Bytes a second below which it does not wait longer."""

# gevent's version yields to the event loop.
_poll = get_original("select", "poll")


class Connections:
    """Registry of the open connections. More than `limit` of them may be open for a short time only."""

    def __init__(self, limit: int, read_limits: ReadLimits) -> None:
        self._limit = limit
        self._read_limits = read_limits
        self._readers: dict[socket.socket, ClientReader] = {}
        self._closing = 0

    def add(self, client: socket.socket) -> None:
        """Register a connection, and close idle ones if there are more than the limit.

        The new one is extra if none could be closed.
        """
        reader = ClientReader(client, self._read_limits)
        if len(self._readers) - self._closing >= self._limit:
            reader.is_extra = not self._make_room()
        self._readers[client] = reader

    def remove(self, client: socket.socket) -> None:
        """Forget a connection that was closed."""
        if self._readers.pop(client).is_closing:
            self._closing -= 1

    def reader_of(self, client: socket.socket) -> ClientReader:
        """Return the reader of a registered connection."""
        return self._readers[client]

    def close_idle(self, grace: float = 0.0) -> None:
        """Close the connections that have been idle for `grace` seconds."""
        threshold = time.monotonic() - grace
        for reader in self._idle():
            if reader.since <= threshold and not (grace and _may_have_request(reader)):
                self._close(reader)

    def end_slow_bodies(self) -> None:
        """End the requests whose bodies arrive too slowly to wait for while the worker drains."""
        for reader in list(self._readers.values()):
            if reader.phase is REQUEST and reader.is_slow(BODY_GRACE, DRAINING_RATE):
                reader.interrupt(ServerShuttingDownError())

    def _make_room(self) -> bool:
        """Close the connections that have been idle for longest, and return False if there was none.

        Those without any complete request are closed first. A client that keeps its connection for the next request
        may be sending it at this moment.
        """
        batch = max(1, self._limit // BATCH_FRACTION)
        candidates = nsmallest(2 * batch, self._idle(), key=_closing_order)
        chosen = [reader for reader in candidates if not _may_have_request(reader)][:batch]
        for reader in chosen:
            self._close(reader)
        return bool(chosen)

    def _idle(self) -> Iterator[ClientReader]:
        """Yield the connections without a complete request."""
        for reader in list(self._readers.values()):
            if reader.phase is not REQUEST and not reader.is_closing:
                yield reader

    def _close(self, reader: ClientReader) -> None:
        reader.is_closing = True
        self._closing += 1
        shutdown_socket(reader.sock)


def _closing_order(reader: ClientReader) -> tuple[bool, float]:
    return reader.has_served, reader.since


def _may_have_request(reader: ClientReader) -> bool:
    """Return True if unread data has arrived, which may complete a request. Discarded data does not count."""
    if reader.phase is DRAIN:
        return False
    poll = _poll()
    poll.register(reader.sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
