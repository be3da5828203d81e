"""Cooperative cancellation of one call."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .errors import CallCancelledError, OpenAICompatError
from .former_names import warn_renamed


class CancellationToken:
    """Token that signals the end of one call, because its client disconnected or the server shuts down.

    Blocking code registers a callback that wakes it (a socket's `shutdown`). Computing code checks `is_cancelled`.
    `cancel` may be called from any thread or greenlet, repeatedly, before or after a callback is registered.
    """

    __slots__ = ("_callbacks", "is_cancelled", "reason")

    def __init__(self) -> None:
        self.is_cancelled = False
        self.reason: OpenAICompatError | None = None
        self._callbacks: list[Callable[[], None]] = []

    def cancel(self, reason: OpenAICompatError | None = None) -> None:
        """Cancel the call and run the callbacks.

        `reason` is the error for a client that is still connected. None means that the client disconnected.
        """
        if not self.is_cancelled:
            self.reason = reason
        self.is_cancelled = True
        while self._callbacks:
            self._callbacks.pop()()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Register `callback` to run at cancellation, or run it now if the call is already cancelled."""
        self._callbacks.append(callback)
        if self.is_cancelled:
            self.cancel()

    def remove_callback(self, callback: Callable[[], None]) -> None:
        """Unregister `callback`, if it is registered."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        """Former name of `remove_callback`, for third-party backends."""
        warn_renamed("forget", "remove_callback")
        self.remove_callback(callback)

    def to_error(self) -> OpenAICompatError:
        """Return the error that the cancelled call ends with."""
        return self.reason or CallCancelledError()

    def raise_if_cancelled(self) -> None:
        """Raise the error of `to_error` if the call is cancelled."""
        if self.is_cancelled:
            raise self.to_error()

    def wait(self, seconds: float) -> None:
        """Sleep for `seconds`, or until the cancellation.

        Raises:
            CallCancelledError or the cancellation's reason: The call is cancelled before or during the wait.
        """
        woken = threading.Event()
        self.on_cancel(woken.set)
        woken.wait(seconds)
        self.remove_callback(woken.set)
        self.raise_if_cancelled()
