"""Native thread for work that would block the event loop of a gevent worker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar, cast

from gevent.monkey import is_module_patched
from gevent.threadpool import ThreadPool

T = TypeVar("T")


class NativeThread:
    """One native thread that runs functions in turn. Without gevent the calling thread does, behind a lock."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._pool = ThreadPool(1) if is_module_patched("threading") else None

    def call(self, function: Callable[[], T]) -> T:
        """Return the result of `function` or raise its error. Other greenlets run meanwhile."""
        if self._pool is None:
            with self._lock:
                return function()
        result, error = self._pool.apply(_capture, (function,))
        if error is not None:
            raise error
        return cast(T, result)

    def close(self) -> None:
        """End the thread once it is idle."""
        if self._pool is not None:
            self._pool.kill()


def _capture(function: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """Return the result and the error of `function`. gevent would print an error that leaves the thread."""
    try:
        return function(), None
    except BaseException as error:  # noqa: BLE001 - `call` raises it
        return None, error
