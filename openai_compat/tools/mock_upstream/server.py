"""Sockets of the mock upstream, one greenlet for each connection, with detection of client disconnects."""

from __future__ import annotations

import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import gevent
import gevent.server
import httptools
from gevent.socket import socket as Connection

from .app import CONTROL_PREFIX, MockApplication
from .exchange import Exchange, Request, RequestReader
from .faults import MODELS
from .options import Options
from .recorder import ClientDisconnectedError

_BACKLOG = 4096  # thousands of clients of a benchmark connect at once
_READABLE = 1  # event mask of libev's io watchers


def serve(host: str, port: int, api_key: str | None, defaults: Options) -> int:
    """Serve until SIGINT or SIGTERM. Return 0, or 1 if the address is not available."""
    _raise_open_files_limit()
    application = MockApplication(api_key, defaults)

    def handle(connection: Connection, _address: object) -> None:
        ConnectionHandler(application, connection).serve()

    server = gevent.server.StreamServer((host, port), handle, backlog=_BACKLOG)
    try:
        server.start()
    except OSError as error:
        print(f"mock upstream cannot listen on {host}:{port}: {error.strerror}", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, server.stop)
    print(f"mock upstream listening on http://{host}:{server.server_port}", flush=True)
    for model in MODELS.values():
        print(f"  {model.name:36} {model.meaning}{f' ({model.defaults})' if model.defaults else ''}")
    sys.stdout.flush()
    server.serve_forever()
    return 0


def _raise_open_files_limit() -> None:
    """Raise the limit of open files to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS refuses its own "unlimited"
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class ConnectionHandler:
    """One connection of a client."""

    def __init__(self, application: MockApplication, connection: Connection) -> None:
        self._application = application
        self._recorder = application.recorder
        self._connection = connection
        self._is_counted = True
        self._has_called_api = False

    def serve(self) -> None:
        """Serve requests until the connection ends."""
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._recorder.open_connection()
        try:
            while self._serve_one():
                pass
        except (ClientDisconnectedError, OSError):
            pass  # the recorder has recorded it
        finally:
            self._connection.close()
            self._recorder.connections_open -= self._is_counted

    def _serve_one(self) -> bool:
        """Serve one request. Return True if the connection stays open."""
        request = self._read()
        if request is None:
            return False
        exchange = Exchange(self._connection, request, next(self._application.request_numbers))
        if request.path.startswith(CONTROL_PREFIX):
            self._exclude_from_stats()
            self._application.control(exchange)
        else:
            self._has_called_api = True
            with self._recorder.recording(exchange), _cancel_on_disconnect(self._connection):
                if not request.is_complete:
                    raise ClientDisconnectedError
                self._application.answer(exchange)
        return exchange.is_keep_alive

    def _read(self) -> Request | None:
        """Return the next request, None at the end of the connection or after invalid HTTP."""
        try:
            return RequestReader(self._connection).read()
        except httptools.HttpParserError:
            self._connection.sendall(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            return None

    def _exclude_from_stats(self) -> None:
        """Remove this connection from the counters if it has only read them."""
        if self._is_counted and not self._has_called_api:
            self._is_counted = False
            self._recorder.ignore_connection()


@contextmanager
def _cancel_on_disconnect(connection: Connection) -> Iterator[None]:
    """Raise `ClientDisconnectedError` in the current greenlet as soon as the client disconnects.

    A half-close counts as a disconnect. It is not detected while there is unread data, such as a pipelined request.
    """
    greenlet = gevent.getcurrent()
    watcher = gevent.get_hub().loop.io(connection.fileno(), _READABLE)

    def check() -> None:
        watcher.stop()
        if _is_at_end(connection):
            gevent.kill(greenlet, ClientDisconnectedError)

    watcher.start(check)
    try:
        yield
    finally:
        watcher.stop()
        watcher.close()


def _is_at_end(connection: Connection) -> bool:
    """Return True if a readable connection is at its end."""
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except OSError:
        return True
