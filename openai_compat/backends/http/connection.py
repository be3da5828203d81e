"""HTTP/1.1 connections to upstreams, each with a response parser and the time limits of its exchange."""

from __future__ import annotations

import select
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import httptools
from gevent.monkey import get_original

from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.timeouts import Timeouts

from .gevent_reader import gevent_reader

RECEIVE_BYTES: Final = 65_536
MAX_HEADER_BYTES: Final = 64 * 1024
"""The largest head of a response. The interim responses (100, 103) before it count, too."""

# The unpatched `poll`, under gevent as well. With timeout 0 it is one system call of 0.4 µs, while gevent's `poll(0)`
# starts a watcher and takes a turn of the event loop (15 µs), in which other greenlets run.
poll = get_original("select", "poll")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """The `timeout` argument of `LlhttpAdapter.send`.

    `timeouts` limit each step in seconds. `cancellation` ends every wait at once. `heartbeat_interval` is the idle time
    in seconds after which `ResponseBody.read1` returns None (0 for never). `resends` receives the host of each request
    that is sent a second time. With None no request is.
    """

    timeouts: Timeouts = field(default_factory=Timeouts)
    cancellation: CancellationToken = field(default_factory=CancellationToken)
    heartbeat_interval: float = 0.0
    resends: list[str] | None = field(default_factory=list)


class Origin(NamedTuple):
    """The endpoint of a connection. Requests with equal origins can share a connection."""

    scheme: str
    host: str
    port: int
    proxy: str | None


def remaining(seconds: float, deadline: float) -> float | None:
    """Return a socket timeout of `seconds` (0 for unlimited) that ends no later than `deadline` (monotonic time).

    Return None if neither sets a limit.
    """
    if deadline == float("inf"):
        return seconds or None
    left = max(deadline - time.monotonic(), 0.001)
    return min(seconds, left) if seconds else left


def shut_down(sock: socket.socket) -> None:
    """Shut down both directions of a socket, which ends all waits for it.

    A TLS socket's own `shutdown` would also drop its TLS object. A concurrent read would then continue in plain text,
    and a concurrent handshake would fail on None.
    """
    socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Connection:
    """A socket, its response parser and the state of the current exchange."""

    __slots__ = (
        "_header_bytes",
        "_held",
        "_parser",
        "_poll",
        "_read_timeout",
        "_reader",
        "body",
        "expires_at",
        "headers",
        "headers_complete",
        "is_close_delimited",
        "is_complete",
        "is_head",
        "is_reused",
        "keep_alive",
        "origin",
        "sent_bytes",
        "sock",
        "status",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, origin: Origin) -> None:
        self.sock = sock
        self.origin = origin
        self.is_reused = False
        self.expires_at = 0.0
        self._poll = poll()
        self._poll.register(sock.fileno(), select.POLLIN)
        self._reader = gevent_reader(sock)
        self._read_timeout: float | None = None
        self._held: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)
        self.start(is_head=False)

    def start(self, *, is_head: bool) -> None:
        """Reset the state for the next exchange."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []
        self.is_head = is_head
        self.headers_complete = self.is_complete = self.keep_alive = self.is_close_delimited = False
        self._header_bytes = self.sent_bytes = 0

    def is_usable(self, now: float) -> bool:
        """Return True if the idle connection can be used again.

        A readable idle connection was closed by the upstream, or holds bytes that belong to no request.
        """
        return now < self.expires_at and not self._poll.poll(0)

    @property
    def may_have_body(self) -> bool:
        """True unless the request's method or the status rules out a body."""
        return not self.is_head and self.status not in {204, 304}

    @property
    def is_unanswered(self) -> bool:
        """True if nothing has arrived since `start`, not even an interim response."""
        return not self._header_bytes

    def abort(self) -> None:
        """Wake the reader of this connection with an error. Any thread or greenlet may call it."""
        with suppress(OSError):  # it is closed already
            shut_down(self.sock)

    def close(self) -> None:
        """Close the socket."""
        if self._reader is not None:
            self._reader.close()
        self.sock.close()

    def set_read_timeout(self, seconds: float | None) -> None:
        """Limit each `receive` to `seconds`, or not at all if None."""
        self._read_timeout = seconds
        if self._reader is None:
            self.sock.settimeout(seconds)

    def receive(self) -> bytes:
        """Wait for data and feed it to the parser. Return the data, or b"" at the end of the stream.

        Raises:
            TimeoutError: Nothing arrived within the read timeout.
            OSError: The connection failed.
            httptools.HttpParserError: The data is not HTTP, or its head is too large.
        """
        reader = self._reader
        data = self.sock.recv(RECEIVE_BYTES) if reader is None else reader.read(RECEIVE_BYTES, self._read_timeout)
        if not data:
            return data
        arrived = data
        try:
            if not self.headers_complete:
                if self._header_bytes:
                    data = self._take_head(data)
                else:
                    self._header_bytes = len(data)
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            raise httptools.HttpParserError("the upstream switched protocols without a request for it") from error
        except httptools.HttpParserError:
            if not self.is_complete:
                raise
            self.keep_alive = False  # data after a complete response belongs to no request
        return arrived

    def _take_head(self, data: bytes) -> bytes:
        """Return the part of the data to parse now, after a first part of the head.

        An unfinished line waits for its end, because the parser copies what it has of a line for each further piece.

        Raises:
            httptools.HttpParserError: The head is larger than `MAX_HEADER_BYTES`.
        """
        self._header_bytes += len(data)
        excess = max(self._header_bytes - MAX_HEADER_BYTES, 0)
        self._held.append(data)
        if not excess and b"\n" not in data:
            return b""
        data = b"".join(self._held)
        self._held.clear()
        if not excess:
            return data
        self._parser.feed_data(data[:-excess])
        if not self.headers_complete:
            raise httptools.HttpParserError("the head is too large")
        return data[-excess:]

    # Callbacks of the parser, in the order of its calls. Interim responses (100, 103) are messages of their own.

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise ValueError("there is more than one response")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.headers_complete:
            return  # a trailer
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status >= 200:
            self.headers_complete = True
            self.keep_alive = self._parser.should_keep_alive()
            self.is_close_delimited = self._has_no_framing()
            if self.is_head:
                self.is_complete, self.keep_alive = True, False

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        if self.status >= 200:
            self.is_complete = True
        else:
            self.headers = {}

    def _has_no_framing(self) -> bool:
        """Return True if the body has neither a length nor chunks, so that it ends when the upstream closes."""
        encodings = self.headers.get("transfer-encoding", "").lower()
        return "content-length" not in self.headers and "chunked" not in encodings
