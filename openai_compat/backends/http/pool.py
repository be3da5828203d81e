"""Connections to other servers: opened, kept for the next request, and waited for no longer than anyone cares to."""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import httptools
from gevent.monkey import get_original

from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.settings import Timeouts

from .gevent_reader import read_wait

log = logging.getLogger(__name__)

RECEIVE_BYTES: Final = 65_536
MAX_HEADER_BYTES: Final = 256 * 1024
REAP_INTERVAL: Final = 5.0
IDLE_TIMEOUT: Final = 50.0
"""A connection unused for longer is not used again: many servers and balancers drop theirs after 60 s."""

# The original also under gevent: without a wait it is one system call, 0.4 µs. gevent's `poll(0)` starts a watcher and
# takes a turn of the event loop, 15 µs, in which other greenlets run.
poll = get_original("select", "poll")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """What `send` takes as its `timeout`: how long each step may last, and what ends every wait at once.

    After `heartbeat_interval` of quiet in an answer, `read1` returns None; 0 for never.
    """

    timeouts: Timeouts = field(default_factory=Timeouts)
    cancellation: CancellationToken = field(default_factory=CancellationToken)
    heartbeat_interval: float = 0.0


class Origin(NamedTuple):
    """What a connection is made to, and what makes two requests able to share one."""

    scheme: str
    host: str
    port: int
    proxy: str | None


def remaining(seconds: float, deadline: float) -> float | None:
    """A socket's timeout that ends at the deadline at the latest; None for no limit at all."""
    if deadline == float("inf"):
        return seconds or None
    left = max(deadline - time.monotonic(), 0.001)
    return min(seconds, left) if seconds else left


def shut_down(sock: socket.socket) -> None:
    """Ends the waits for this socket. A TLS socket's own `shutdown` would take TLS from under whoever reads or shakes
    hands: it then finds None, or reads on without TLS.
    """
    socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Connection:
    """A socket, the parser of what comes from it, and the state of the one exchange under way."""

    __slots__ = (
        "_header_bytes",
        "_is_readable",
        "_limit",
        "_parser",
        "_wait",
        "body",
        "ends_with_connection",
        "headers",
        "idle_since",
        "is_complete",
        "is_head",
        "is_reused",
        "is_started",
        "keep_alive",
        "origin",
        "sock",
        "status",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, origin: Origin) -> None:
        self.sock = sock
        self.origin = origin
        self.is_reused = False
        self.idle_since = 0.0
        self._is_readable = poll()
        self._is_readable.register(sock.fileno(), select.POLLIN)
        self._wait = read_wait(sock)
        self._limit: float | None = None
        self._parser = httptools.HttpResponseParser(self)
        self.start(is_head=False)

    def start(self, *, is_head: bool) -> None:
        """Makes ready for the next exchange."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []
        self.is_head = is_head
        self.is_started = self.is_complete = self.keep_alive = self.ends_with_connection = False
        self._header_bytes = 0

    def is_usable(self, now: float) -> bool:
        """An idle connection on which something arrived was closed by the peer, or is out of step."""
        return now - self.idle_since < IDLE_TIMEOUT and not self._is_readable.poll(0)

    @property
    def may_have_body(self) -> bool:
        return not self.is_head and self.status not in {204, 304}

    @property
    def is_unanswered(self) -> bool:
        """Nothing at all has come since `start`, not even an interim answer."""
        return not self._header_bytes

    def abort(self) -> None:
        """Wakes whoever waits for this connection, from any thread or greenlet."""
        with suppress(OSError):  # it was closed already, which is all that is wanted
            shut_down(self.sock)

    def close(self) -> None:
        if self._wait is not None:
            self._wait.close()
        self.sock.close()

    def set_read_timeout(self, seconds: float | None) -> None:
        """How long `receive` waits at most; None for as long as it takes."""
        self._limit = seconds
        if self._wait is None:
            self.sock.settimeout(seconds)

    def receive(self) -> bool:
        """Takes in what has arrived, waiting for it if nothing has; False at the end of the stream.

        Raises:
            TimeoutError, OSError: the socket's own. httptools.HttpParserError: what came is not HTTP.
        """
        data = self.sock.recv(RECEIVE_BYTES) if self._wait is None else self._wait.read(RECEIVE_BYTES, self._limit)
        if not data:
            return False
        if not self.is_started:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                raise httptools.HttpParserError("its headers are too large")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            raise httptools.HttpParserError("it changes to a protocol that nobody asked for") from error
        except httptools.HttpParserError:
            if not self.is_complete:
                raise
            self.keep_alive = False  # what follows a whole answer is nobody's, and neither is the connection now
        return True

    # What the parser calls, in this order. Interim answers (100, 103) come as messages of their own.

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise ValueError("there is more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.is_started:
            return  # a trailer: what the headers say has been read
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status >= 200:
            self.is_started = True
            self.keep_alive = self._parser.should_keep_alive()
            self.ends_with_connection = self._has_no_length()
            if self.is_head:
                self.is_complete, self.keep_alive = True, False

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        if self.status >= 200:
            self.is_complete = True
        else:
            self.headers = {}

    def _has_no_length(self) -> bool:
        """Neither a length nor chunks: the answer is whole when the peer closes."""
        return "content-length" not in self.headers and "chunked" not in self.headers.get("transfer-encoding", "")


class ConnectionPool:
    """Connections that wait for their next request: the last one used is the first one taken."""

    def __init__(self, most_idle: int) -> None:
        self._most_idle = most_idle
        self._idle: dict[Origin, deque[Connection]] = {}
        self._is_swept = False

    def take(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin)
        now = time.monotonic()
        while idle:
            connection = idle.pop()
            if connection.is_usable(now):
                connection.is_reused = True
                return connection
            connection.close()
        return None

    def release(self, connection: Connection) -> None:
        idle = self._idle.setdefault(connection.origin, deque())
        connection.idle_since = time.monotonic()
        idle.append(connection)
        if len(idle) > self._most_idle:
            idle.popleft().close()
        if not self._is_swept:
            self._is_swept = True
            threading.Thread(target=self._reap_idle, name="idle-connections", daemon=True).start()

    def _reap_idle(self) -> None:
        """Closes what has not been used for too long; a thread (a greenlet, under gevent) that ends with the last."""
        try:
            while any(list(self._idle.values())):
                time.sleep(REAP_INTERVAL)
                self._close_unused(time.monotonic() - IDLE_TIMEOUT)
        finally:
            self._is_swept = False

    def _close_unused(self, oldest: float) -> None:
        for idle in list(self._idle.values()):
            try:
                while idle and idle[0].idle_since < oldest:
                    idle.popleft().close()
            except Exception:  # one that cannot be closed must not keep the others open for good
                log.warning("an idle connection could not be closed", exc_info=True)

    def close(self) -> None:
        for idle in self._idle.values():
            while idle:
                idle.pop().close()
