"""Primitives for starting, priming and closing streams of values.

A stream is any iterator with a `close()`. It may yield `HEARTBEAT` during an idle gap, so that the response body can
send a keep-alive to the client without a thread of its own.
"""

from __future__ import annotations

import _thread
from collections.abc import Callable, Iterator
from contextvars import copy_context
from enum import Enum, auto
from itertools import chain
from typing import Final, Generic, TypeVar, cast

T = TypeVar("T")


class Heartbeat(Enum):
    """Type of `HEARTBEAT`, distinct from every type of delta."""

    HEARTBEAT = auto()

    def __repr__(self) -> str:
        return "HEARTBEAT"


HEARTBEAT: Final = Heartbeat.HEARTBEAT
"""Compared with `is`, which costs a tenth of `isinstance` for each delta of a stream."""


class PrimedStream(Generic[T]):
    """Iterator that has already fetched its first value, with a `close()` that always reaches the source.

    The constructor runs the source up to its first value that is not `HEARTBEAT`. It raises the source's errors up to
    there, while the response can still have an error status. As the source has started by then, `close()` runs its
    `finally` blocks, which a generator that never started would ignore. An empty source is an empty stream.
    """

    __slots__ = ("_first", "_has_first", "_source")

    def __init__(self, source: Iterator[T]) -> None:
        self._source = source
        self._has_first = True
        try:
            self._first: T | None = next(value for value in source if value is not HEARTBEAT)
        except StopIteration:
            self._first, self._has_first = None, False
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[T]:
        """Return an iterator that adds no call of this class to each value."""
        if not self._has_first:
            return self._source
        first, self._first, self._has_first = cast(T, self._first), None, False
        return chain((first,), self._source)

    def __next__(self) -> T:
        if self._has_first:
            first, self._first, self._has_first = cast(T, self._first), None, False
            return first
        return next(self._source)

    def close(self) -> None:
        """Close the source."""
        self._has_first = False
        close_stream(self._source)


class BackgroundStart(Generic[T]):
    """Future of `start()`, which runs in a thread (under gevent, in a greenlet).

    It is used for the first token of an answer, which may take minutes in which the client needs keep-alives.
    """

    def __init__(self, start: Callable[[], T]) -> None:
        # A lock and a bare thread, as `threading`'s Event and Thread would double the cost of a stream's start.
        self._running = _thread.allocate_lock()
        self._running.acquire()
        self._is_closed = False
        self._result: T | None = None
        self._error: BaseException | None = None
        # `start` is no attribute, because the request that it refers to may be large and the stream long.
        _thread.start_new_thread(copy_context().run, (self._run, start))

    def _run(self, start: Callable[[], T]) -> None:
        try:
            self._result = start()
        except BaseException as error:  # noqa: BLE001 - `result` raises it
            self._error = error
        self._running.release()
        if self._is_closed:
            close_stream(self._result)

    @property
    def is_done(self) -> bool:
        """True once `start()` has returned or raised."""
        return not self._running.locked()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for up to `seconds`, and return True if `start()` has returned or raised."""
        is_done = self._running.acquire(timeout=-1 if seconds is None else seconds)
        if is_done:
            self._running.release()
        return is_done

    def result(self) -> T:
        """Wait for `start()`, and return its result or raise its error."""
        self.wait()
        if self._error is not None:
            raise self._error
        return cast(T, self._result)

    def close(self) -> None:
        """Discard the result, and close it as soon as it exists."""
        self._is_closed = True
        if not self._running.locked():
            close_stream(self._result)


def close_stream(stream: object) -> None:
    """Close `stream` if it has a `close` method, which lists and plain iterators lack."""
    close = getattr(stream, "close", None)
    if close is not None:
        close()
