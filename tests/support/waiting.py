"""Waiting for something that another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(
    condition: Callable[[], object], what: str | Callable[[], str] = "the condition", seconds: float = 20.0
) -> None:
    """Return once `condition()` is true. Fail with `what`, or with the text that it returns, after `seconds`.

    The limit only bounds a failing test. A passing one returns within 10 ms of the change.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(f"not true within {seconds:g} s: {what() if callable(what) else what}")
        time.sleep(0.01)
