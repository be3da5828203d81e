"""A bounded number of calls at once, and a bounded queue for the rest."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from .cancellation import CancellationToken
from .errors import OpenAICompatError, OverloadedError

MAX_RETRY_AFTER = 30


class _Waiter:
    """Somebody's turn in the queue: `is_given` when a place has become theirs."""

    __slots__ = ("event", "is_given")

    def __init__(self) -> None:
        self.event = threading.Event()
        self.is_given = False


class ConcurrencyLimiter:
    """Limit concurrency to `max_concurrent` calls and queue up to `max_queued` more for `wait_seconds` each.

    Raise `to_error(retry_after)` when the queue is full or the wait times out.
    """

    def __init__(
        self,
        max_concurrent: int,
        max_queued: int,
        wait_seconds: float,
        to_error: Callable[[int], OpenAICompatError] = OverloadedError,
    ) -> None:
        self._most = max_concurrent
        self._most_waiting = max_queued
        self._wait_seconds = wait_seconds
        self._to_error = to_error
        self._inside = 0
        self._queue: deque[_Waiter] = deque()
        self._lock = threading.Lock()

    def acquire(self, cancellation: CancellationToken) -> None:
        """Returns when the caller may go on, who must `release` once for it.

        Raises:
            OverloadedError, or what `to_error` makes: no place, and none to wait at either; or not in time.
            CallCancelledError, or the reason for the cancellation: while waiting.
        """
        with self._lock:
            if self._inside < self._most:
                self._inside += 1
                return
            if len(self._queue) >= self._most_waiting or not self._wait_seconds:
                raise self._refusal()
            place = _Waiter()
            self._queue.append(place)
        self._wait(place, cancellation)

    def release(self) -> None:
        """Gives the place to the first in line."""
        with self._lock:
            if self._queue:
                place = self._queue.popleft()
                place.is_given = True
                place.event.set()
            else:
                self._inside -= 1

    def _wait(self, place: _Waiter, cancellation: CancellationToken) -> None:
        cancellation.on_cancel(place.event.set)
        place.event.wait(self._wait_seconds)
        cancellation.remove_callback(place.event.set)
        with self._lock:
            if not place.is_given:
                self._queue.remove(place)
        if cancellation.is_cancelled and place.is_given:
            self.release()
        cancellation.raise_if_cancelled()
        if not place.is_given:
            raise self._refusal()

    def _refusal(self) -> OpenAICompatError:
        return self._to_error(int(min(max(self._wait_seconds, 1), MAX_RETRY_AFTER)))
