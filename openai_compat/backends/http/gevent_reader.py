"""Socket reads under gevent at a third of the CPU time of gevent's own `recv`.

gevent's `recv` begins with a read that finds nothing and raises, and makes a timer for each wait. For streams of short
events both costs are noticeable (`docs/internals/performance.md`).
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from time import monotonic
from typing import Any, Final

from gevent import get_hub, getcurrent
from gevent.monkey import is_module_patched
from greenlet import greenlet

READ: Final = 1
"""libev's EV_READ."""
INFINITY: Final = float("inf")


class SocketReader:
    """Reads from a non-blocking socket's `descriptor` that block only the calling greenlet.

    One greenlet may read at a time. The reader must be closed before the socket. The watcher and the timer are kept
    from one wait to the next: the watcher is stopped when it fires without a waiting greenlet, and the timer is set
    anew when it fires before the current deadline.
    """

    __slots__ = ("_deadline", "_descriptor", "_hub", "_timer", "_timer_at", "_waiter", "_watcher")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._hub = get_hub()
        self._watcher: Any = self._hub.loop.io(descriptor, READ)
        self._timer: Any = None
        self._deadline = self._timer_at = INFINITY
        self._waiter: Any = None

    def read(self, max_bytes: int, timeout: float | None) -> bytes:
        """Wait for data for up to `timeout` seconds (None for unlimited) and return up to `max_bytes` of it.

        Return b"" at the end of the stream.

        Raises:
            TimeoutError: Nothing arrived in time.
            OSError: The connection failed, or the reader was closed.
        """
        self._deadline = INFINITY if timeout is None else monotonic() + timeout
        if self._deadline < self._timer_at:
            self._set_timer()
        while True:
            if not self._watcher.active:
                self._watcher.start(self._on_readable)
            self._waiter = getcurrent()
            try:
                greenlet.switch(self._hub)  # the hub's own method first looks for a hook that is never set here
            finally:
                self._waiter = None
            try:
                return os.read(self._descriptor, max_bytes)
            except BlockingIOError as error:  # a spurious wakeup, which the kernel permits
                if monotonic() >= self._deadline:
                    raise TimeoutError("timed out") from error

    def _on_readable(self) -> None:
        if self._waiter is None:
            self._watcher.stop()
        else:
            self._waiter.switch()

    def _set_timer(self) -> None:
        self._close_timer()
        self._timer_at = self._deadline
        self._timer = self._hub.loop.timer(max(self._deadline - monotonic(), 0.0))
        self._timer.start(self._on_timeout)

    def _on_timeout(self) -> None:
        self._timer_at = INFINITY
        if self._waiter is None or self._deadline == INFINITY:
            return
        if monotonic() < self._deadline:
            self._set_timer()
        else:
            self._waiter.throw(TimeoutError("timed out"))

    def _close_timer(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def close(self) -> None:
        """Stop watching the descriptor. Raise OSError (EBADF) in a waiting greenlet, as gevent's own sockets do."""
        if self._waiter is not None:
            self._hub.loop.run_callback(self._waiter.throw, OSError(errno.EBADF, "closed while it was read from"))
        self._watcher.close()
        self._close_timer()


def gevent_reader(sock: socket.socket) -> SocketReader | None:
    """Return a reader for the socket, or None if the socket's own `recv` must be used.

    That is the case without gevent, and under TLS, where the TLS layer may hold data that it has read already.
    """
    if isinstance(sock, ssl.SSLSocket) or not is_module_patched("socket"):
        return None
    return SocketReader(sock.fileno())
