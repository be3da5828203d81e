"""A bounded number of calls at once, and a bounded queue for the rest."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from .cancellation import Cancellation
from .errors import OpenAICompatError, OverloadedError

MOST_RETRY_SECONDS = 30


class _Place:
    """Somebody's turn in the queue: `is_given` when a place has become theirs."""

    __slots__ = ("is_given", "turn")

    def __init__(self) -> None:
        self.turn = threading.Event()
        self.is_given = False


class Gate:
    """Lets `most` in at once. Up to `most_waiting` further ones wait in line, each for at most `wait_seconds`; whoever
    cannot is refused with `to_error(seconds)`, whose argument says when trying again makes sense.
    """

    def __init__(
        self,
        most: int,
        most_waiting: int,
        wait_seconds: float,
        to_error: Callable[[int], OpenAICompatError] = OverloadedError,
    ) -> None:
        self._most = most
        self._most_waiting = most_waiting
        self._wait_seconds = wait_seconds
        self._to_error = to_error
        self._inside = 0
        self._queue: deque[_Place] = deque()
        self._lock = threading.Lock()

    def enter(self, cancellation: Cancellation) -> None:
        """Returns when the caller may go on, who must `leave` once for it.

        Raises:
            OverloadedError, or what `to_error` makes: no place, and none to wait at either; or not in time.
            CallCancelledError, or the reason for the cancellation: while waiting.
        """
        with self._lock:
            if self._inside < self._most:
                self._inside += 1
                return
            if len(self._queue) >= self._most_waiting or not self._wait_seconds:
                raise self._refusal()
            place = _Place()
            self._queue.append(place)
        self._wait(place, cancellation)

    def leave(self) -> None:
        """Gives the place to the first in line."""
        with self._lock:
            if self._queue:
                place = self._queue.popleft()
                place.is_given = True
                place.turn.set()
            else:
                self._inside -= 1

    def _wait(self, place: _Place, cancellation: Cancellation) -> None:
        cancellation.on_cancel(place.turn.set)
        place.turn.wait(self._wait_seconds)
        cancellation.forget(place.turn.set)
        with self._lock:
            if not place.is_given:
                self._queue.remove(place)
        if cancellation.is_cancelled and place.is_given:
            self.leave()
        cancellation.raise_if_cancelled()
        if not place.is_given:
            raise self._refusal()

    def _refusal(self) -> OpenAICompatError:
        return self._to_error(int(min(max(self._wait_seconds, 1), MOST_RETRY_SECONDS)))
