"""Waiting for a socket under gevent, at a third of what gevent's own `recv` spends on it.

That begins with a read that finds nothing and raises, and makes a timer for each wait; an event of a stream is short
enough for both to show (`docs/internals/performance.md`).
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
    """Reads from the socket `descriptor`, waiting in the greenlet that calls. `close` it before the socket.

    Watcher and timer go on from one wait to the next: the watcher is stopped when it fires and nobody waits, the timer
    is set anew when it rings too early.
    """

    __slots__ = ("_deadline", "_descriptor", "_hub", "_readable", "_rings_at", "_timer", "_waiter")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._hub = get_hub()
        self._readable: Any = self._hub.loop.io(descriptor, READ)
        self._timer: Any = None
        self._deadline = self._rings_at = INFINITY
        self._waiter: Any = None

    def read(self, most: int, seconds: float | None) -> bytes:
        """What has arrived, up to `most` bytes; b"" at the end. `seconds` None waits for as long as it takes.

        Raises:
            TimeoutError, OSError
        """
        self._deadline = INFINITY if seconds is None else monotonic() + seconds
        if self._deadline < self._rings_at:
            self._set_timer()
        while True:
            if not self._readable.active:
                self._readable.start(self._wake)
            self._waiter = getcurrent()
            try:
                greenlet.switch(self._hub)  # the hub's own method first looks for a hook that no greenlet here has
            finally:
                self._waiter = None
            try:
                return os.read(self._descriptor, most)
            except BlockingIOError as error:  # woken for nothing, as the kernel may
                if monotonic() >= self._deadline:
                    raise TimeoutError("timed out") from error

    def _wake(self) -> None:
        if self._waiter is None:
            self._readable.stop()
        else:
            self._waiter.switch()

    def _set_timer(self) -> None:
        self._drop_timer()
        self._rings_at = self._deadline
        self._timer = self._hub.loop.timer(max(self._deadline - monotonic(), 0.0))
        self._timer.start(self._ring)

    def _ring(self) -> None:
        self._rings_at = INFINITY
        if self._waiter is None or self._deadline == INFINITY:
            return
        if monotonic() < self._deadline:
            self._set_timer()
        else:
            self._waiter.throw(TimeoutError("timed out"))

    def _drop_timer(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def close(self) -> None:
        """Whoever is reading hears of it, as from gevent's own sockets."""
        if self._waiter is not None:
            self._hub.loop.run_callback(self._waiter.throw, OSError(errno.EBADF, "closed while it was read from"))
        self._readable.close()
        self._drop_timer()


def read_wait(sock: socket.socket) -> SocketReader | None:
    """None where a socket must wait for itself: outside gevent, and under TLS, which may hold what was read before."""
    if isinstance(sock, ssl.SSLSocket) or not is_module_patched("socket"):
        return None
    return SocketReader(sock.fileno())
