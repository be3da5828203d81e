"""Changes to gunicorn's gevent worker for coalesced writes, timeouts, reserved connections and graceful shutdown.

gunicorn sends the header block and the first bytes of the body with two system calls, and gevent's `sendall` adds
another one to each. `docs/internals/performance.md` lists what each change saves.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.client import responses
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

import gevent
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.http import parser, wsgi
from gunicorn.workers.ggevent import GeventWorker

from openai_compat.core.errors import (
    OpenAICompatError,
    OverloadedError,
    RequestTimeoutError,
    ServerShuttingDownError,
    to_envelope,
)
from openai_compat.core.settings import HEALTH_CHECK_PATHS

from .arbiter import mark_draining
from .client_reader import ClientReader, ReadLimits
from .connections import IDLE_GRACE, RESERVED_CONNECTIONS, Connections
from .request_parser import patch_gunicorn

if TYPE_CHECKING:
    from gunicorn.http.message import Request

log = logging.getLogger(__name__)

SMALL_BYTES: Final = 65_536
"""Size up to which copying bytes into one buffer costs less than a system call of their own."""
NOTSENT_LOWAT: Final = 131_072
"""Limit on unsent bytes in the kernel for a slow client. By default, the kernel buffers megabytes."""
POLL_INTERVAL: Final = 0.2
"""Seconds between two checks of a draining worker."""
SHUTDOWN_GRACE: Final = 5
"""Seconds between `GRACEFUL_TIMEOUT` and gunicorn's `graceful_timeout`, in which aborted calls send their error."""


class CoalescedResponse(wsgi.Response):
    """Response that sends its header block together with the first bytes of the body."""

    _unsent_headers = b""
    _chunk_descriptor: int | None = None
    """Descriptor for writing chunks directly, set after the first write of a chunked body without TLS."""

    def __init__(self, req: Request, sock: socket.socket, cfg: Any, write_timeout: float | None) -> None:
        super().__init__(req, sock, cfg)
        self._write_timeout = write_timeout

    def default_headers(self) -> list[str]:
        """Return gunicorn's header lines without `Server`, which names the software to attackers."""
        status, _, *others = super().default_headers()
        return [status, *others]

    def send_headers(self) -> None:
        if self.headers_sent:
            return
        lines = [*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers), "\r\n"]
        self._unsent_headers = "".join(lines).encode("latin-1")
        self.headers_sent = True

    def write(self, arg: bytes) -> None:
        """Write a part of the body. A chunk of a running stream bypasses the checks of gunicorn and gevent."""
        if self._chunk_descriptor is None or not 0 < len(arg) < SMALL_BYTES:
            super().write(arg)
            return
        data = b"%X\r\n%s\r\n" % (len(arg), arg)
        try:
            sent = os.write(self._chunk_descriptor, data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._send_blocking(memoryview(data)[sent:])

    def _emit_body(self, data: bytes) -> None:
        """Send a part of the body, as gunicorn's `write` calls it after its checks."""
        headers, self._unsent_headers = self._unsent_headers, b""
        if len(data) > SMALL_BYTES:
            start, end = (b"%s%X\r\n" % (headers, len(data)), b"\r\n") if self.chunked else (headers, b"")
            for part in (start, data, end):
                self._send(part)
        else:
            self._send(b"%s%X\r\n%s\r\n" % (headers, len(data), data) if self.chunked else headers + data)
        if self.chunked and not isinstance(self.sock, ssl.SSLSocket):
            self._chunk_descriptor = self.sock.fileno()

    def can_sendfile(self) -> bool:
        """Return False, as `sendfile` would bypass `_emit_body` and lose the header block."""
        return False

    def _send(self, data: bytes) -> None:
        """Send `data`, which usually fits into the socket's buffer at once."""
        try:
            sent = self.sock.send(data, 0, 0.0)  # type: ignore[call-arg]  # gevent's extra argument: do not wait
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._send_blocking(memoryview(data)[sent:])

    def _send_blocking(self, data: memoryview) -> None:
        """Send `data` to a slow client.

        Raises:
            ConnectionResetError: The client read nothing for `write_timeout` seconds.
        """
        self.sock.settimeout(self._write_timeout)
        try:
            while data:
                data = data[self.sock.send(data) :]
        except TimeoutError as error:
            log.info("disconnected a client that had read nothing for %s s", self._write_timeout)
            # Discard unsent data at close, which the kernel would otherwise keep for minutes.
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise ConnectionResetError(errno.ECONNRESET, "the client stopped reading") from error
        self.sock.settimeout(None)

    def close(self) -> None:
        """Send the rest of the response."""
        self.send_headers()
        rest = self._unsent_headers + (b"0\r\n\r\n" if self.chunked else b"")
        if rest:
            self._unsent_headers = b""
            self._send(rest)


def write_envelope(sock: socket.socket, status_int: int, reason: str, mesg: str) -> None:
    """Send OpenAI's error body for a request that gunicorn rejects (too large headers, or no HTTP)."""
    is_client_error = status_int < 500
    message = f"{reason}: {mesg}" if is_client_error and mesg else reason
    _write(sock, status_int, to_envelope(message, "invalid_request_error" if is_client_error else "server_error"))


def write_error(sock: socket.socket, error: OpenAICompatError) -> None:
    """Send OpenAI's error body for a request that does not reach the application."""
    retry = f"Retry-After: {error.retry_after}\r\n" if error.retry_after is not None else ""
    _write(sock, error.status or 500, error.to_envelope(), retry)


def _write(sock: socket.socket, status: int, envelope: dict[str, Any], headers: str = "") -> None:
    body = json.dumps(envelope).encode()
    head = (
        f"HTTP/1.1 {status} {responses.get(status, '')}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nx-request-id: req_{token_hex(16)}\r\n{headers}\r\n"
    )
    util.write_nonblock(sock, head.encode("latin-1") + body)


class Worker(GeventWorker):
    """Worker class for gunicorn's configuration, which also sets `write_timeout` and `read_limits`.

    `write_timeout` is the number of seconds after which a client that reads nothing is disconnected. None means never.
    """

    write_timeout: float | None = None
    read_limits = ReadLimits()

    def init_process(self) -> None:
        self.adapt_gunicorn()
        _raise_file_limit()
        super().init_process()

    def adapt_gunicorn(self) -> None:
        """Patch what gunicorn has no settings for, in this process."""
        patch_gunicorn(self.cfg)
        self._connections = Connections(self.cfg.worker_connections, self.read_limits)
        self.worker_connections = self.cfg.worker_connections + RESERVED_CONNECTIONS
        parser.SocketUnreader = self._connections.reader_of  # type: ignore[attr-defined]  # missing in the stubs
        # gevent accepts up to 100 connections before it serves any of them, which delays the first answers of a burst.
        # With 1 the last ones wait too long.
        StreamServer.max_accept = 10
        wsgi.create = partial(wsgi.create, response_class=CoalescedResponse, response_args=(self.write_timeout,))
        util.write_error = write_envelope

    def run(self) -> None:
        for listener in self.sockets:
            _limit_send_buffer(listener)
        gevent.spawn(self._drain)
        super().run()

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        """Serve a connection, and register it for as long as it is open."""
        self._connections.add(client)
        try:
            super().handle(listener, client, addr)
        finally:
            self._connections.remove(client)

    def handle_request(self, listener_name: Any, req: Any, sock: socket.socket, addr: Any) -> bool:
        """Serve one request, and discard what the application left of its body."""
        reader: ClientReader = req.unreader
        reader.begin_request(req)
        if reader.is_extra:
            self._check_health_only(req, sock)
        try:
            keeps_alive = super().handle_request(listener_name, req, sock, addr)
        except StopIteration:  # the connection is closed after this response
            if _has_unread_body(req):
                _end_response(sock)
                _discard_body(req)
            raise
        if _has_unread_body(req):
            if req.body.failed:  # where the next request would begin is unknown
                _end_response(sock)
            if not _discard_body(req):
                raise StopIteration
        reader.end_request()
        return keeps_alive

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer a request that failed outside the application, and discard what the client still sends of it."""
        if isinstance(exc, RequestTimeoutError):
            log.info("closed a connection: %s", exc.message)
            write_error(client, exc)
        else:
            super().handle_error(req, client, addr, exc)
        _end_response(client)
        reader = self._connections.reader_of(client)
        _drain_with(reader, reader.chunk)

    def _check_health_only(self, req: Any, sock: socket.socket) -> None:
        """Let a health check pass on a connection beyond the limit.

        Raises:
            StopIteration: the request is another one, and was answered with an error.
        """
        req.force_close()
        if req.path.rstrip("/") in HEALTH_CHECK_PATHS:
            return
        log.warning("refused a request, because all %s connections are in use", self.cfg.worker_connections)
        write_error(sock, OverloadedError())
        _end_response(sock)
        _discard_body(req)
        raise StopIteration

    def _drain(self) -> None:
        """Wait until the worker stops, then close idle connections and abort the calls that exceed the timeout."""
        while self.alive:  # until a signal, or until the worker recycles itself
            gevent.sleep(POLL_INTERVAL)
        mark_draining(self)
        deadline = time.monotonic() + self.cfg.graceful_timeout - SHUTDOWN_GRACE
        while time.monotonic() < deadline:
            self._connections.close_idle(IDLE_GRACE)
            self._connections.end_slow_bodies()
            gevent.sleep(POLL_INTERVAL)
        self._abort_remaining()

    def _abort_remaining(self) -> None:
        """Close idle connections, and cancel all calls with `ServerShuttingDownError`."""
        self._connections.close_idle()
        state = getattr(self.wsgi, "extensions", {}).get("openai_compat")
        if state is not None:  # the application may be wrapped in WSGI middleware
            state.disconnect_monitor.cancel_all(ServerShuttingDownError())


def _end_response(sock: socket.socket) -> None:
    """Report the end of the response to the client, which may still be sending."""
    with suppress(OSError):  # the client disconnected
        if not isinstance(sock, ssl.SSLSocket):  # its `shutdown` would end TLS for the reads as well
            sock.shutdown(socket.SHUT_WR)


def _has_unread_body(req: Any) -> bool:
    """Return False if the body is known to be complete. Of a chunked one that is not known."""
    return bool(getattr(req.body.reader, "length", 1) or req.body.buf.tell())


def _discard_body(req: Any) -> bool:
    """Read what the application left of the request body for a short time. Return True if nothing is left.

    The kernel resets a connection that is closed with unread data, so that a client which is still sending would lose
    the response.
    """
    if req.body.failed:
        _drain_with(req.unreader, req.unreader.chunk)
        return False
    return _drain_with(req.unreader, partial(req.body.read, SMALL_BYTES))


def _drain_with(reader: ClientReader, read: Callable[[], bytes]) -> bool:
    """Call `read` until it returns nothing. Return False if it raised an error."""
    reader.begin_drain()
    with suppress(Exception):  # the client disconnected or is too slow, or the body is invalid
        while read():
            pass
        return True
    return False


def _limit_send_buffer(listener: socket.socket) -> None:
    """Set the limit on unsent bytes, which accepted sockets inherit from `listener`."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # absent on some systems
    if option is not None and listener.family in {socket.AF_INET, socket.AF_INET6}:
        listener.setsockopt(socket.IPPROTO_TCP, option, NOTSENT_LOWAT)


def _raise_file_limit() -> None:
    """Raise the soft limit on open files (usually 1024) to the hard one, as each stream needs two sockets."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
