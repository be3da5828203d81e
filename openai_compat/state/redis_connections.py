"""Connections to Redis that a process keeps for its commands."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

from .redis_client import SOCKET_TIMEOUT

KEPT_SECONDS: Final = 1.0
"""Time for which a connection is used again as it is. After it, redis-py checks whether Redis has closed it."""


class RedisConnections:
    """A number of connections, which are opened on first use. A command waits until one is free.

    redis-py's `execute_command` takes three times the CPU. It takes a connection from the pool for each command, checks
    and counts it, and it reports replies as late. In a busy worker, the end of a timeout may be noticed before a reply
    that has arrived in time.
    """

    def __init__(self, pool: Any, count: int, check_turn: Callable[[], None]) -> None:
        """Use up to `count` connections of redis-py's `pool`.

        `check_turn` is called once a command has a connection, and raises an error if it shall not be sent any more.
        """
        self._pool = pool
        self._check_turn = check_turn
        self._idle: SimpleQueue[tuple[Any, float]] = SimpleQueue()
        for _ in range(count):
            self._idle.put((None, 0.0))

    def exchange(self, arguments: tuple[Any, ...]) -> Any:
        """Send a command and return its reply. The errors are redis-py's, and those of `check_turn`."""
        kept, used_at = self._idle.get()
        try:
            self._check_turn()
        except BaseException:
            self._idle.put((kept, used_at))
            raise
        return self._exchange(kept, used_at, arguments)

    def _exchange(self, kept: Any, used_at: float, arguments: tuple[Any, ...]) -> Any:
        connection = None
        try:
            connection = self._renew(kept, used_at)
            connection.send_packed_command((_pack(arguments),), check_health=False)
            if not connection.can_read(SOCKET_TIMEOUT) and not connection.can_read(0):
                raise TimeoutError("Redis has not answered in time")
            return connection.read_response()
        except BaseException:  # the next command would get the reply to this one
            if connection is not None:
                connection.disconnect()
            raise
        finally:
            self._idle.put((connection, time.monotonic()))

    def _renew(self, kept: Any, used_at: float) -> Any:
        """Return a connection that works, the one that was kept if it was used a moment ago."""
        if kept is not None:
            if time.monotonic() - used_at < KEPT_SECONDS:
                return kept
            self._pool.release(kept)
        return self._pool.get_connection()


def _pack(arguments: tuple[Any, ...]) -> bytes:
    """Return a command in Redis' protocol."""
    values = [str(argument).encode() for argument in arguments]
    return b"*%d\r\n%s" % (len(values), b"".join([b"$%d\r\n%s\r\n" % (len(value), value) for value in values]))
