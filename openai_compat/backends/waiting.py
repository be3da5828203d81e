"""Waiting for a socket under gevent, at a third of what gevent's own `recv` spends on it.

That begins with a read that finds nothing and raises, and makes a timer for each wait; an event of a stream is short
enough for both to show (`docs/performance.md`).
"""

from __future__ import annotations

import os
import socket
import ssl
from typing import Any, Final

from gevent import get_hub, getcurrent
from gevent.monkey import is_module_patched

READ: Final = 1
"""libev's EV_READ."""


class ReadWait:
    """Reads from the socket `descriptor`, waiting in the greenlet that calls. `close` it before the socket."""

    __slots__ = ("_descriptor", "_hub", "_readable", "_seconds", "_timer")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._hub = get_hub()
        self._readable: Any = self._hub.loop.io(descriptor, READ)
        self._timer: Any = None
        self._seconds: float | None = None

    def read(self, most: int, seconds: float | None) -> bytes:
        """What has arrived, up to `most` bytes; b"" at the end. `seconds` None waits for as long as it takes.

        Raises:
            TimeoutError, OSError
        """
        while True:
            self._wait(seconds)
            try:
                return os.read(self._descriptor, most)
            except BlockingIOError:
                continue  # woken for nothing, as the kernel may

    def _wait(self, seconds: float | None) -> None:
        if seconds is None:
            self._hub.wait(self._readable)
            return
        if seconds != self._seconds:
            self._replace_timer(seconds)
        # `again`, not `start`: libev keeps what was left of a stopped timer, and would begin with that.
        self._timer.again(getcurrent().throw, TimeoutError("timed out"))
        try:
            self._hub.wait(self._readable)
        finally:
            self._timer.stop()

    def _replace_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.close()
        self._timer = None if seconds is None else self._hub.loop.timer(seconds, seconds)
        self._seconds = seconds

    def close(self) -> None:
        self._readable.close()
        self._replace_timer(None)


def read_wait(sock: socket.socket) -> ReadWait | None:
    """None where a socket must wait for itself: outside gevent, and under TLS, which may hold what was read before."""
    if isinstance(sock, ssl.SSLSocket) or not is_module_patched("socket"):
        return None
    return ReadWait(sock.fileno())
