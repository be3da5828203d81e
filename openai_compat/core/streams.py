"""Starting, watching and ending a stream of values; standard library only.

A stream here is any iterator with a `close()`. Between values it may yield `HEARTBEAT`, its word for "nothing happened
for a while", so that whoever writes to the client can fill the pause without a thread of its own.
"""

from __future__ import annotations

import _thread
from collections.abc import Callable, Iterator
from contextvars import copy_context
from itertools import chain
from typing import Final, Generic, TypeVar, cast

T = TypeVar("T")


class _Heartbeat:
    """The type of `HEARTBEAT`: a value of its own, so that no delta is ever mistaken for it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "SILENCE"


HEARTBEAT: Final = _Heartbeat()
Heartbeat = _Heartbeat


class PrimedStream(Generic[T]):
    """An iterator whose first value has already been fetched, and whose `close()` always reaches its source.

    Priming runs the source up to its first value that is not `HEARTBEAT`, so a failure before it is raised here, while
    the response can still carry a status of its own. A generator that was never started ignores `close()`; this class
    does not: the source has been started.

    Raises:
        whatever the source raises before its first value; StopIteration never: an empty source is an empty stream.
    """

    __slots__ = ("_first", "_has_first", "_source")

    def __init__(self, source: Iterator[T]) -> None:
        self._source = source
        self._has_first = True
        try:
            self._first: T | None = next(value for value in source if not isinstance(value, Heartbeat))
        except StopIteration:
            self._first, self._has_first = None, False
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[T]:
        """Without a step of this class for each value."""
        if not self._has_first:
            return self._source
        self._has_first = False
        return chain((cast(T, self._first),), self._source)

    def __next__(self) -> T:
        if self._has_first:
            first, self._first, self._has_first = cast(T, self._first), None, False
            return first
        return next(self._source)

    def close(self) -> None:
        self._has_first = False
        close_stream(self._source)


class BackgroundStart(Generic[T]):
    """Something that is being started in a thread (a greenlet, under gevent), so that its starter can do other things.

    Made for the first piece of an answer: it may take minutes, and the client must hear something meanwhile.
    """

    def __init__(self, start: Callable[[], T]) -> None:
        self._start = start
        # A lock and a bare thread: `threading`'s Event and Thread cost as much as the rest of a stream's beginning.
        self._running = _thread.allocate_lock()
        self._running.acquire()
        self._is_abandoned = False
        self._result: T | None = None
        self._error: BaseException | None = None
        _thread.start_new_thread(copy_context().run, (self._run,))

    def _run(self) -> None:
        try:
            self._result = self._start()
        except BaseException as error:  # noqa: BLE001 - it is raised again in `result`, by whoever waits
            self._error = error
        self._running.release()
        if self._is_abandoned:
            close_stream(self._result)

    @property
    def is_over(self) -> bool:
        """Whether it has come to an end, one way or the other."""
        return not self._running.locked()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it is over, one way or the other, after at most `seconds`."""
        is_over = self._running.acquire(timeout=-1 if seconds is None else seconds)
        if is_over:
            self._running.release()
        return is_over

    def result(self) -> T:
        """What was started, once it is over; raises what starting it raised."""
        self.wait()
        if self._error is not None:
            raise self._error
        return cast(T, self._result)

    def close(self) -> None:
        """Nobody wants the result: it is closed as soon as it is there."""
        self._is_abandoned = True
        if not self._running.locked():
            close_stream(self._result)


def close_stream(stream: object) -> None:
    """Closes what can be closed: lists and plain iterators have nothing to give back."""
    close = getattr(stream, "close", None)
    if close is not None:
        close()
