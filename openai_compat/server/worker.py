"""Changes to gunicorn's gevent worker for own responses, timeouts, reserved connections and graceful shutdown."""

from __future__ import annotations

import logging
import resource
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import gevent
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.http import parser, wsgi
from gunicorn.workers.ggevent import GeventWorker

from openai_compat.core.errors import OverloadedError, RequestTimeoutError, ServerShuttingDownError
from openai_compat.core.settings import MONITORING_PATHS

from .arbiter import mark_draining
from .client_reader import ClientReader, ReadLimits
from .connections import IDLE_GRACE, RESERVED_CONNECTIONS, Connections
from .request_parser import patch_gunicorn
from .response import SMALL_BYTES, CoalescedResponse, write_envelope, write_error

log = logging.getLogger(__name__)

NOTSENT_LOWAT: Final = 131_072
"""Limit on unsent bytes in the kernel for a slow client. By default, the kernel buffers megabytes."""
POLL_INTERVAL: Final = 0.2
"""Seconds between two checks of a draining worker."""
SHUTDOWN_GRACE: Final = 5
"""Seconds between `GRACEFUL_TIMEOUT` and gunicorn's `graceful_timeout`, in which aborted calls send their error."""


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
        # By default each greenlet keeps a description of the stack that started it, for debugging.
        gevent.config.track_greenlet_tree = False
        wsgi.create = partial(wsgi.create, response_class=CoalescedResponse, response_args=(self.write_timeout,))
        util.write_error = write_envelope

    def run(self) -> None:
        for listener in self.sockets:
            _limit_send_buffer(listener)
        draining = gevent.spawn(self._drain)
        try:
            super().run()
            self._finish_background()
        finally:
            draining.kill()  # gunicorn closes the file that it writes to

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
            self._check_monitoring_only(req, sock)
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

    def _check_monitoring_only(self, req: Any, sock: socket.socket) -> None:
        """Let a health check or a scrape of the metrics pass on a connection beyond the limit.

        Raises:
            StopIteration: the request is another one, and was answered with an error.
        """
        req.force_close()
        if req.path.rstrip("/") in MONITORING_PATHS:
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

    def _finish_background(self) -> None:
        """Wait for background responses, which `_drain` aborts after the timeout."""
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while (state := self._state) is not None and not state.background.is_idle and time.monotonic() < deadline:
            self.notify()
            gevent.sleep(POLL_INTERVAL)

    def _abort_remaining(self) -> None:
        """Close idle connections, and cancel all calls with `ServerShuttingDownError`."""
        self._connections.close_idle()
        if (state := self._state) is not None:
            state.disconnect_monitor.cancel_all(ServerShuttingDownError())
            state.background.cancel_all(ServerShuttingDownError())

    @property
    def _state(self) -> Any:
        """The components of the application, or None if it is wrapped in WSGI middleware."""
        return getattr(self.wsgi, "extensions", {}).get("openai_compat")


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
