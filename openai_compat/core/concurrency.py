"""Concurrency limiter with a bounded FIFO queue."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from .cancellation import CancellationToken
from .errors import OpenAICompatError, OverloadedError

MAX_RETRY_AFTER = 30
"""Upper bound of `retry_after`, in seconds."""


class Slots(Protocol):
    """Slots for calls, of which each call takes one and releases it once."""

    def acquire(self, cancellation: CancellationToken) -> None:
        """Wait for a slot and take it."""

    def release(self) -> None:
        """Free the slot."""


class _Waiter:
    """Queued call. `is_granted` becomes True when it gets a slot."""

    __slots__ = ("event", "is_granted")

    def __init__(self) -> None:
        self.event = threading.Event()
        self.is_granted = False


class ConcurrencyLimiter:
    """Limiter that runs up to `max_concurrent` calls at once and queues up to `max_queued` more.

    A queued call waits for up to `timeout` seconds. Calls that get no slot fail with `to_error(retry_after)`.
    """

    def __init__(
        self,
        max_concurrent: int,
        max_queued: int,
        timeout: float,
        to_error: Callable[[int], OpenAICompatError] = OverloadedError,
    ) -> None:
        self._max_concurrent = max_concurrent
        self._max_queued = max_queued
        self._timeout = timeout
        self._to_error = to_error
        self._active = 0
        self._queue: deque[_Waiter] = deque()
        self._lock = threading.Lock()

    def acquire(self, cancellation: CancellationToken) -> None:
        """Wait for a slot and take it. The caller must call `release` once.

        Raises:
            OverloadedError or the result of `to_error`: The queue is full, or the wait timed out.
            CallCancelledError or the cancellation's reason: The call was cancelled during the wait.
        """
        with self._lock:
            if self._active < self._max_concurrent:
                self._active += 1
                return
            if len(self._queue) >= self._max_queued or not self._timeout:
                raise self._rejection()
            waiter = _Waiter()
            self._queue.append(waiter)
        self._wait(waiter, cancellation)

    @property
    def queued(self) -> int:
        """The number of calls that wait for a slot."""
        return len(self._queue)

    def check(self) -> None:
        """Raise OverloadedError, or the result of `to_error`, if a call would get no slot and no place to wait."""
        with self._lock:
            is_full = self._active >= self._max_concurrent
            if is_full and (len(self._queue) >= self._max_queued or not self._timeout):
                raise self._rejection()

    def release(self) -> None:
        """Pass the slot to the first waiter, or free it."""
        with self._lock:
            if self._queue:
                waiter = self._queue.popleft()
                waiter.is_granted = True
                waiter.event.set()
            else:
                self._active -= 1

    def _wait(self, waiter: _Waiter, cancellation: CancellationToken) -> None:
        cancellation.on_cancel(waiter.event.set)
        waiter.event.wait(self._timeout)
        cancellation.remove_callback(waiter.event.set)
        with self._lock:
            if not waiter.is_granted:
                self._queue.remove(waiter)
        if cancellation.is_cancelled and waiter.is_granted:
            self.release()
        cancellation.raise_if_cancelled()
        if not waiter.is_granted:
            raise self._rejection()

    def _rejection(self) -> OpenAICompatError:
        return self._to_error(int(min(max(self._timeout, 1), MAX_RETRY_AFTER)))
