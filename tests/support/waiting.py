"""Waiting for something that another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], what: str = "the condition", seconds: float = 20.0) -> None:
    """Return once `condition()` is true. Fail with `what` in the message if that takes longer than `seconds`.

    The limit only bounds a failing test. A passing one returns within 10 ms of the change.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.01)
