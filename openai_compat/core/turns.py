"""Turns for other greenlets during work that takes more than a few milliseconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

SLICE_SECONDS: Final = 0.005
"""Time that work may take before other greenlets get a turn."""
YIELD_SLEEP: Final = 1e-9
"""Seconds. After a sleep of 0, gevent switches to other greenlets but polls the sockets only every 50th time."""

P = ParamSpec("P")
T = TypeVar("T")


_waiting: set[object] = set()
"""One object for each call of `give_turn` that has not returned."""


def give_turn() -> None:
    """Let every other greenlet that is ready run. In a thread, other threads run.

    The sleep is longer by a slice for each other call that gives a turn at the moment. Without that, a request that
    arrives during twenty long calls would wait for a slice of each of them.
    """
    seconds = len(_waiting) * SLICE_SECONDS or YIELD_SLEEP
    own = object()
    _waiting.add(own)
    try:
        time.sleep(seconds)
    finally:
        _waiting.discard(own)


class TimeSlices:
    """Time slices of one piece of work. `check` is called often and gives a turn at the end of each slice."""

    def __init__(self, seconds: float = SLICE_SECONDS) -> None:
        self._seconds = seconds
        self._ends_at = time.perf_counter() + seconds

    def check(self) -> None:
        """Give a turn if the slice is over."""
        if time.perf_counter() >= self._ends_at:
            give_turn()
            self._ends_at = time.perf_counter() + self._seconds

    def checked(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return `function` with a check before each call."""

        def call(*arguments: P.args, **options: P.kwargs) -> T:
            self.check()
            return function(*arguments, **options)

        return call
