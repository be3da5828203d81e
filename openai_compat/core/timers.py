"""Timers that share one thread, because most of them are cancelled long before they expire."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from time import monotonic
from typing import Any, Final

log = logging.getLogger(__name__)


class SharedTimer:
    """Timer with the interface of `threading.Timer`, at a tenth of its cost.

    `function` must not block, because it delays all other timers.
    """

    __slots__ = ("_arguments", "_function", "_seconds")

    def __init__(self, seconds: float, function: Callable[..., None], arguments: tuple[Any, ...] = ()) -> None:
        self._seconds = seconds
        self._function: Callable[..., None] | None = function
        self._arguments = arguments

    @property
    def is_cancelled(self) -> bool:
        """True if the function will not be called any more."""
        return self._function is None

    def start(self) -> None:
        """Call the function after the timer's seconds."""
        _thread.add(monotonic() + self._seconds, self)

    def cancel(self) -> None:
        """Drop the function and its arguments, unless it is being called already."""
        self._function, self._arguments = None, ()

    def expire(self) -> None:
        """Call the function, unless the timer was cancelled."""
        function, arguments = self._function, self._arguments
        self.cancel()
        if function is not None:
            try:
                function(*arguments)
            except Exception:  # the other timers must expire as well
                log.exception("a timer's function failed")


class _TimerThread:
    """Thread that runs while there are timers. It sleeps until the first one expires."""

    def __init__(self) -> None:
        self._timers: list[tuple[float, int, SharedTimer]] = []
        self._numbers = count()
        self._lock = threading.Lock()
        self._is_earlier = threading.Event()
        self._is_running = False

    def add(self, deadline: float, timer: SharedTimer) -> None:
        """Let `timer` expire at the monotonic time `deadline`."""
        with self._lock:
            heappush(self._timers, (deadline, next(self._numbers), timer))
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="timers", daemon=True).start()
            elif self._timers[0][2] is timer:
                self._is_earlier.set()

    def _run(self) -> None:
        while True:
            with self._lock:
                while self._timers and self._timers[0][2].is_cancelled:
                    heappop(self._timers)
                if not self._timers:
                    self._is_running = False
                    return
                wait = self._timers[0][0] - monotonic()
                timer = heappop(self._timers)[2] if wait <= 0 else None
                self._is_earlier.clear()
            if timer is None:
                self._is_earlier.wait(wait)
            else:
                timer.expire()


_thread: Final = _TimerThread()
