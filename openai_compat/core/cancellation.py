"""Cancellation of one call."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .errors import CallCancelledError, OpenAICompatError


class CancellationToken:
    """Tells one call's workers that the answer is not wanted any more: its client left, or this server ends.

    Whoever blocks registers a callback that wakes it (a socket's `shutdown`); whoever computes asks `is_cancelled`.
    `cancel()` may come from any thread or greenlet, any number of times, before or after a callback is registered.
    """

    __slots__ = ("_callbacks", "is_cancelled", "reason")

    def __init__(self) -> None:
        self.is_cancelled = False
        self.reason: OpenAICompatError | None = None
        self._callbacks: list[Callable[[], None]] = []

    def cancel(self, reason: OpenAICompatError | None = None) -> None:
        """Ends the call; `reason` is what a client that is still there is told. Without one, it has left."""
        if not self.is_cancelled:
            self.reason = reason
        self.is_cancelled = True
        while self._callbacks:
            self._callbacks.pop()()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Calls `callback` at the cancellation: at once when that has already happened."""
        self._callbacks.append(callback)
        if self.is_cancelled:
            self.cancel()

    def remove_callback(self, callback: Callable[[], None]) -> None:
        """The work that `callback` would have stopped is over."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def to_error(self) -> OpenAICompatError:
        """What the cancelled call ends with."""
        return self.reason or CallCancelledError()

    def raise_if_cancelled(self) -> None:
        if self.is_cancelled:
            raise self.to_error()

    def wait(self, seconds: float) -> None:
        """Sleeps, but not beyond the cancellation.

        Raises:
            CallCancelledError, or the reason it was cancelled for: before or during the wait.
        """
        woken = threading.Event()
        self.on_cancel(woken.set)
        woken.wait(seconds)
        self.remove_callback(woken.set)
        self.raise_if_cancelled()
