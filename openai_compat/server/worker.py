"""What this server changes about gunicorn's workers: how they write, whom they let go, and how they end.

gunicorn sends the head of an answer and its first bytes one after the other, and gevent's `sendall` asks for the size
of the socket's buffer each time; `docs/internals/performance.md` has what that cost.
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
"""Up to this size, copying the bytes behind the head costs less than sending them by themselves."""
NOTSENT_LOWAT: Final = 131_072
"""What the kernel holds for a client that does not read; by itself it would take in megabytes."""
IDLE_GRACE: Final = 1.0
"""At the end of a worker, a connection without a request for so long is closed. A busy one learns from its next answer
that it is the last: closed at once, a request that is just coming would be lost."""
POLL_INTERVAL: Final = 0.2
SHUTDOWN_GRACE: Final = 5
"""What `graceful_timeout` in gunicorn.conf.py has beyond `GRACEFUL_TIMEOUT`: the time for the last words."""

# gevent's own ones wait for a turn of its loop, and wake others.
_poll = get_original("select", "poll")
_Socket = get_original("socket", "socket")


class CoalescedResponse(wsgi.Response):
    """The head waits for the first bytes of the body, and both go out together."""

    _head = b""
    _stream_descriptor: int | None = None
    """Set once a chunked body is under way, where its pieces can go to the socket without gevent and TLS between."""

    def __init__(self, req: Request, sock: socket.socket, cfg: Any, write_timeout: float | None) -> None:
        super().__init__(req, sock, cfg)
        self._write_seconds = write_timeout

    def send_headers(self) -> None:
        if self.headers_sent:
            return
        lines = [*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers), "\r\n"]
        self._head = "".join(lines).encode("latin-1")
        self.headers_sent = True

    def write(self, arg: bytes) -> None:
        """The next piece of the body. One of a stream under way needs none of what gunicorn and gevent look at."""
        if self._stream_descriptor is None or not 0 < len(arg) < SMALL_BYTES:
            super().write(arg)
            return
        data = b"%X\r\n%s\r\n" % (len(arg), arg)
        try:
            sent = os.write(self._stream_descriptor, data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._send_blocking(memoryview(data)[sent:])

    def _emit_body(self, data: bytes) -> None:
        """What gunicorn calls to put a piece of the body on the wire."""
        head, self._head = self._head, b""
        if len(data) > SMALL_BYTES:
            start, end = (b"%s%X\r\n" % (head, len(data)), b"\r\n") if self.chunked else (head, b"")
            for piece in (start, data, end):
                self._send(piece)
        else:
            self._send(b"%s%X\r\n%s\r\n" % (head, len(data), data) if self.chunked else head + data)
        if self.chunked and not isinstance(self.sock, ssl.SSLSocket):
            self._stream_descriptor = self.sock.fileno()

    def can_sendfile(self) -> bool:
        """It would go past `_emit_body`, and leave the head behind."""
        return False

    def _send(self, data: bytes) -> None:
        """Most of the time all of it fits into the socket's buffer at once."""
        try:
            sent = self.sock.send(data, 0, 0.0)  # type: ignore[call-arg]  # gevent's own: without waiting
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._send_blocking(memoryview(data)[sent:])

    def _send_blocking(self, data: memoryview) -> None:
        """Waits for a client that reads more slowly than we write, as long as it reads at all."""
        self.sock.settimeout(self._write_seconds)
        try:
            while data:
                data = data[self.sock.send(data) :]
        except TimeoutError as error:
            log.info("a client was dropped: it had read nothing for %s s", self._write_seconds)
            # What it never took would stay with the kernel for minutes; this throws it away.
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise ConnectionResetError(errno.ECONNRESET, "the client reads no more") from error
        self.sock.settimeout(None)

    def close(self) -> None:
        self.send_headers()
        rest = self._head + (b"0\r\n\r\n" if self.chunked else b"")
        if rest:
            self._head = b""
            self._send(rest)


def write_envelope(sock: socket.socket, status_int: int, reason: str, mesg: str) -> None:
    """What gunicorn refuses before any application sees it (a head that is too long or no HTTP), in OpenAI's words."""
    is_theirs = status_int < 500
    message = f"{reason}: {mesg}" if is_theirs and mesg else reason
    envelope = to_envelope(message, "invalid_request_error" if is_theirs else "server_error")
    body = json.dumps(envelope).encode()
    head = (
        f"HTTP/1.1 {status_int} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nx-request-id: req_{token_hex(16)}\r\n\r\n"
    )
    util.write_nonblock(sock, head.encode("latin-1") + body)


class Worker(GeventWorker):
    """What `gunicorn.conf.py` names as its `worker_class`. `write_timeout` is set there: how long a client may leave
    its answer unread; None for ever.
    """

    write_timeout: float | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._idle_connections: dict[socket.socket, float] = {}
        """Connections without a request, and since when."""

    def init_process(self) -> None:
        self.adapt_gunicorn()
        _open_as_many_files_as_allowed()
        super().init_process()

    def adapt_gunicorn(self) -> None:
        """What gunicorn has no settings for, in this process."""
        patch_gunicorn(self.cfg)
        # Of many callers who come at once, the first are answered while others are still taken in. With gevent's own
        # hundred all are taken in before anyone is answered; with one, the last wait far too long.
        StreamServer.max_accept = 10
        wsgi.create = partial(wsgi.create, response_class=CoalescedResponse, response_args=(self.write_timeout,))
        util.write_error = write_envelope

    def run(self) -> None:
        for listener in self.sockets:
            _limit_send_buffer(listener)
        gevent.spawn(self._drain)
        super().run()

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        self._idle_connections[client] = time.monotonic()
        try:
            super().handle(listener, client, addr)
        finally:
            self._idle_connections.pop(client, None)

    def handle_request(self, listener_name: Any, req: Any, sock: socket.socket, addr: Any) -> bool:
        self._idle_connections.pop(sock, None)
        is_answered = super().handle_request(listener_name, req, sock, addr)
        self._idle_connections[sock] = time.monotonic()
        return is_answered

    def _drain(self) -> None:
        """Begins with the worker's end, however it comes, and leaves only when gunicorn takes the process away."""
        while self.alive:  # a signal ends that, or the worker itself when it recycles
            gevent.sleep(POLL_INTERVAL)
        mark_draining(self)
        time_is_up = time.monotonic() + self.cfg.graceful_timeout - SHUTDOWN_GRACE
        while time.monotonic() < time_is_up:
            self._close_resting()
            gevent.sleep(POLL_INTERVAL)
        self._abort_remaining()

    def _close_resting(self) -> None:
        rested = time.monotonic() - IDLE_GRACE
        for client, since in list(self._idle_connections.items()):
            if since <= rested and not _is_readable(client):
                _shutdown_socket(client)

    def _abort_remaining(self) -> None:
        """Tells every client that still waits for something that it will not get it from here."""
        for client in list(self._idle_connections):
            _shutdown_socket(client)
        state = getattr(self.wsgi, "extensions", {}).get("openai_compat")
        if state is not None:  # the application may be wrapped into another
            state.clients.cancel_all(ServerShuttingDownError())


def _limit_send_buffer(listener: socket.socket) -> None:
    """Connections have this from the socket that accepts them."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # Linux has it
    if option is not None and listener.family in {socket.AF_INET, socket.AF_INET6}:
        listener.setsockopt(socket.IPPROTO_TCP, option, NOTSENT_LOWAT)


def _shutdown_socket(client: socket.socket) -> None:
    """Whoever reads from it finds its end, as if the client had left. (gevent's own `shutdown` makes it an error.)"""
    plain = _Socket(fileno=client.fileno())
    with suppress(OSError):  # the client was faster
        plain.shutdown(socket.SHUT_RDWR)
    plain.detach()


def _is_readable(client: socket.socket) -> bool:
    """Whether a request has come that nobody has looked at yet."""
    poll = _poll()
    poll.register(client.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _open_as_many_files_as_allowed() -> None:
    """Each stream needs two sockets, and the usual limit of 1024 is a soft one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
