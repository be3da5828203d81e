"""The sockets of the mock upstream: one greenlet a connection, and an eye on peers that hang up."""

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
from .recorder import ClientGoneError

_BACKLOG = 4096  # a benchmark's thousands of clients connect at once
_READABLE = 1  # the event of libev's io watchers


def serve(host: str, port: int, api_key: str | None, defaults: Options) -> int:
    """Answer until SIGINT or SIGTERM, and return the exit code: 0, or 1 if the address is not to be had."""
    _raise_open_files_limit()
    application = MockApplication(api_key, defaults)

    def converse(connection: Connection, _address: object) -> None:
        ConnectionHandler(application, connection).serve()

    server = gevent.server.StreamServer((host, port), converse, backlog=_BACKLOG)
    try:
        server.start()
    except OSError as error:
        print(f"mock upstream cannot listen on {host}:{port}: {error.strerror}", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, server.stop)
    print(f"mock upstream listening on http://{host}:{server.server_port}", flush=True)
    rows = [f"  {row.name:36} {row.meaning}{f' ({row.defaults})' if row.defaults else ''}" for row in MODELS.values()]
    print("\n".join(rows), flush=True)
    server.serve_forever()
    return 0


def _raise_open_files_limit() -> None:
    """Allow as many connections as the system lets a process have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS refuses its own "unlimited"
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class ConnectionHandler:
    """One connection: reads its requests and has them answered."""

    def __init__(self, application: MockApplication, connection: Connection) -> None:
        """Answer what comes over `connection` with `application`."""
        self._application = application
        self._ledger = application.ledger
        self._connection = connection
        self._is_counted = True
        self._has_asked = False

    def serve(self) -> None:
        """Serve the connection to its end."""
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ledger.open_connection()
        try:
            while self._serve_one():
                pass
        except (ClientGoneError, OSError):
            pass  # noted in the ledger
        finally:
            self._connection.close()
            self._ledger.connections_open -= self._is_counted

    def _serve_one(self) -> bool:
        """Serve one request, and tell whether another may follow."""
        request = self._read()
        if request is None:
            return False
        exchange = Exchange(self._connection, request, next(self._application.request_numbers))
        if request.path.startswith(CONTROL_PREFIX):
            self._disown()
            self._application.control(exchange)
        else:
            self._has_asked = True
            with self._ledger.recording(exchange), _watching(self._connection):
                if not request.is_whole:
                    raise ClientGoneError
                self._application.answer(exchange)
        return exchange.is_keep_alive

    def _read(self) -> Request | None:
        """Return the next request, or None at the end of the connection or of its sense."""
        try:
            return RequestReader(self._connection).read()
        except httptools.HttpParserError:
            self._connection.sendall(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            return None

    def _disown(self) -> None:
        """Leave this connection out of the counters, if all it does is to ask for them."""
        if self._is_counted and not self._has_asked:
            self._is_counted = False
            self._ledger.ignore_connection()


@contextmanager
def _watching(connection: Connection) -> Iterator[None]:
    """Raise `ClientGoneError` in the current greenlet as soon as the peer hangs up, whatever the greenlet waits for.

    A peer that only closes its sending side is taken for one that left. While more data is there unread (a pipelined
    request) nothing is noticed.
    """
    greenlet = gevent.getcurrent()
    watcher = gevent.get_hub().loop.io(connection.fileno(), _READABLE)

    def look() -> None:
        watcher.stop()
        if _is_at_end(connection):
            gevent.kill(greenlet, ClientGoneError)

    watcher.start(look)
    try:
        yield
    finally:
        watcher.stop()
        watcher.close()


def _is_at_end(connection: Connection) -> bool:
    """Tell whether a readable connection has nothing more to read."""
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except OSError:
        return True
