"""Pool of idle connections to upstreams."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from typing import Final

from .connection import Connection, Origin

log = logging.getLogger(__name__)

REAP_INTERVAL: Final = 5.0
"""Seconds between two searches for expired idle connections."""
IDLE_TIMEOUT: Final = 4.0
"""Seconds after which an idle connection is closed. Uvicorn and Node close theirs after 5 s."""
TLS_IDLE_TIMEOUT: Final = 50.0
"""The same for TLS, where a new connection costs several round trips. Load balancers close theirs after 60 s or more.
"""
KEEP_ALIVE_MARGIN: Final = 1.0
"""Seconds by which an idle connection is closed before the `Keep-Alive: timeout` that the upstream announces."""
_KEEP_ALIVE: Final = re.compile(r"timeout\s*=\s*(\d{1,6})\b", re.IGNORECASE)


class ConnectionPool:
    """Idle connections by origin, up to `max_idle` for each. The most recently used one is taken first."""

    def __init__(self, max_idle: int) -> None:
        self._max_idle = max_idle
        self._idle: dict[Origin, deque[Connection]] = {}
        self._is_reaping = False

    def __len__(self) -> int:
        return sum(map(len, self._idle.values()))

    def acquire(self, origin: Origin) -> Connection | None:
        """Remove an idle connection from the pool and return it, or None if there is none."""
        idle = self._idle.get(origin)
        now = time.monotonic()
        while idle:
            connection = idle.pop()
            if connection.is_usable(now):
                connection.is_reused = True
                return connection
            connection.close()
        return None

    def release(self, connection: Connection) -> None:
        """Put a connection into the pool, and close the oldest one if the pool is full."""
        idle = self._idle.setdefault(connection.origin, deque())
        seconds = TLS_IDLE_TIMEOUT if connection.origin.scheme == "https" else IDLE_TIMEOUT
        if "keep-alive" in connection.headers:
            seconds = _limit_idle_time(seconds, connection.headers["keep-alive"])
        connection.expires_at = time.monotonic() + seconds
        idle.append(connection)
        if len(idle) > self._max_idle:
            idle.popleft().close()
        if not self._is_reaping:
            self._is_reaping = True
            threading.Thread(target=self._reap_idle, name="idle-connections", daemon=True).start()

    def _reap_idle(self) -> None:
        """Close expired connections until the pool is empty. Runs in a thread (under gevent in a greenlet)."""
        try:
            while any(list(self._idle.values())):
                time.sleep(REAP_INTERVAL)
                self._close_expired(time.monotonic())
        finally:
            self._is_reaping = False

    def _close_expired(self, now: float) -> None:
        """Close the connections that have expired. Those of one origin expire in about the order of their release."""
        for idle in list(self._idle.values()):
            try:
                while idle and idle[0].expires_at < now:
                    idle.popleft().close()
            except Exception:  # one failure must not keep the other connections open
                log.warning("an idle connection could not be closed", exc_info=True)

    def close(self) -> None:
        """Close all idle connections."""
        for idle in self._idle.values():
            while idle:
                idle.pop().close()


def _limit_idle_time(seconds: float, keep_alive: str) -> float:
    """Return the seconds that a connection may be idle, shortened to what the header `Keep-Alive` announces."""
    found = _KEEP_ALIVE.search(keep_alive)
    return seconds if found is None else min(seconds, int(found[1]) - KEEP_ALIVE_MARGIN)
