"""Changes to gunicorn's gevent worker for coalesced writes, write timeouts and graceful shutdown.

gunicorn sends the header block and the first bytes of the body with two system calls, and gevent's `sendall` adds
another one to each. `docs/internals/performance.md` lists what each change saves.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import select
import socket
import ssl
import struct
import time
from contextlib import suppress
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

import gevent
from gevent.monkey import get_original
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.workers.ggevent import GeventWorker

from openai_compat.core.errors import ServerShuttingDownError, to_envelope

from .arbiter import mark_draining
from .request_parser import patch_gunicorn

if TYPE_CHECKING:
    from gunicorn.http.message import Request

log = logging.getLogger(__name__)

SMALL_BYTES: Final = 65_536
"""Size up to which copying bytes into one buffer costs less than a system call of their own."""
NOTSENT_LOWAT: Final = 131_072
"""Limit on unsent bytes in the kernel for a slow client. By default, the kernel buffers megabytes."""
IDLE_GRACE: Final = 1.0
"""Seconds for which a connection must be idle to be closed by a draining worker.

A connection in use is closed after its next response, which announces it, as a request may already be on its way.
"""
LINGER_SECONDS: Final = 30.0
LINGER_IDLE_SECONDS: Final = 5.0
"""Seconds without data after which the rest of an unread request body is not waited for. Both are nginx's defaults."""
POLL_INTERVAL: Final = 0.2
"""Seconds between two checks of a draining worker."""
SHUTDOWN_GRACE: Final = 5
"""Seconds between `GRACEFUL_TIMEOUT` and gunicorn's `graceful_timeout`, in which aborted calls send their error."""

# gevent's versions of both yield to the event loop.
_poll = get_original("select", "poll")
_Socket = get_original("socket", "socket")


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
    envelope = to_envelope(message, "invalid_request_error" if is_client_error else "server_error")
    body = json.dumps(envelope).encode()
    headers = (
        f"HTTP/1.1 {status_int} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nx-request-id: req_{token_hex(16)}\r\n\r\n"
    )
    util.write_nonblock(sock, headers.encode("latin-1") + body)


class Worker(GeventWorker):
    """Worker class for gunicorn's configuration, which also sets `write_timeout`.

    `write_timeout` is the number of seconds after which a client that reads nothing is disconnected. None means never.
    """

    write_timeout: float | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._idle_connections: dict[socket.socket, float] = {}
        """Start of the idle period by connection."""

    def init_process(self) -> None:
        self.adapt_gunicorn()
        _raise_file_limit()
        super().init_process()

    def adapt_gunicorn(self) -> None:
        """Patch what gunicorn has no settings for, in this process."""
        patch_gunicorn(self.cfg)
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
        """Serve a connection, and track whether it is idle."""
        self._idle_connections[client] = time.monotonic()
        try:
            super().handle(listener, client, addr)
        finally:
            self._idle_connections.pop(client, None)

    def handle_request(self, listener_name: Any, req: Any, sock: socket.socket, addr: Any) -> bool:
        """Serve one request, during which its connection is not idle."""
        self._idle_connections.pop(sock, None)
        try:
            keeps_alive = super().handle_request(listener_name, req, sock, addr)
        except StopIteration:  # the connection is closed after this response
            _discard_body(req, sock)
            raise
        self._idle_connections[sock] = time.monotonic()
        return keeps_alive

    def _drain(self) -> None:
        """Wait until the worker stops, then close idle connections and abort the calls that exceed the timeout."""
        while self.alive:  # until a signal, or until the worker recycles itself
            gevent.sleep(POLL_INTERVAL)
        mark_draining(self)
        deadline = time.monotonic() + self.cfg.graceful_timeout - SHUTDOWN_GRACE
        while time.monotonic() < deadline:
            self._close_idle()
            gevent.sleep(POLL_INTERVAL)
        self._abort_remaining()

    def _close_idle(self) -> None:
        threshold = time.monotonic() - IDLE_GRACE
        for client, since in list(self._idle_connections.items()):
            if since <= threshold and not _is_readable(client):
                _shutdown_socket(client)

    def _abort_remaining(self) -> None:
        """Close idle connections, and cancel all calls with `ServerShuttingDownError`."""
        for client in list(self._idle_connections):
            _shutdown_socket(client)
        state = getattr(self.wsgi, "extensions", {}).get("openai_compat")
        if state is not None:  # the application may be wrapped in WSGI middleware
            state.disconnect_monitor.cancel_all(ServerShuttingDownError())


def _discard_body(req: Request, sock: socket.socket) -> None:
    """End the response, and read what the application left of the request body, for up to `LINGER_SECONDS`.

    The kernel resets a connection that is closed with unread data, so that a client which is still sending would lose
    the response.
    """
    deadline = time.monotonic() + LINGER_SECONDS
    with suppress(Exception):  # the client disconnected or stopped sending, or the body is invalid
        if not isinstance(sock, ssl.SSLSocket):  # its `shutdown` would end TLS for the reads as well
            sock.shutdown(socket.SHUT_WR)
        sock.settimeout(LINGER_IDLE_SECONDS)
        while req.body is not None and req.body.read(SMALL_BYTES) and time.monotonic() < deadline:
            pass


def _limit_send_buffer(listener: socket.socket) -> None:
    """Set the limit on unsent bytes, which accepted sockets inherit from `listener`."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # absent on some systems
    if option is not None and listener.family in {socket.AF_INET, socket.AF_INET6}:
        listener.setsockopt(socket.IPPROTO_TCP, option, NOTSENT_LOWAT)


def _shutdown_socket(client: socket.socket) -> None:
    """Shut the socket down, so that reads return its end as after a client disconnect.

    After gevent's own `shutdown`, they would raise an error.
    """
    native = _Socket(fileno=client.fileno())
    with suppress(OSError):  # the client closed it first
        native.shutdown(socket.SHUT_RDWR)
    native.detach()


def _is_readable(client: socket.socket) -> bool:
    """Return True if unread data has arrived."""
    poll = _poll()
    poll.register(client.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _raise_file_limit() -> None:
    """Raise the soft limit on open files (usually 1024) to the hard one, as each stream needs two sockets."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
