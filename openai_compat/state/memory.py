"""Shared state of one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from time import time
from typing import Final

from .base import StateStore

SWEEP_EVERY: Final = 1000
"""So many writes, and what has expired is thrown away."""


class MemoryStore(StateStore):
    """A dictionary, for a server with one worker, and for one whose store is out of order."""

    def __init__(self, clock: Callable[[], float] = time) -> None:
        self._clock = clock
        self._rows: dict[str, tuple[str, float]] = {}
        self._lock = Lock()
        self._writes = 0

    def read(self, keys: Sequence[str]) -> Mapping[str, str]:
        now = self._clock()
        found = {key: self._rows.get(key) for key in keys}
        return {key: row[0] for key, row in found.items() if row is not None and row[1] > now}

    def write(self, key: str, value: str, seconds: float) -> None:
        with self._lock:
            self._put(key, value, self._clock() + seconds)

    def delete(self, key: str) -> None:
        with self._lock:
            self._rows.pop(key, None)

    def increment(self, key: str, amount: int, seconds: float) -> int:
        with self._lock:
            now = self._clock()
            value, until = self._rows.get(key, ("0", 0.0))
            if until <= now:
                value, until = "0", now + seconds
            total = int(value) + amount
            self._put(key, str(total), until)
            return total

    def set_if_absent(self, key: str, seconds: float) -> bool:
        with self._lock:
            now = self._clock()
            if key in self._rows and self._rows[key][1] > now:
                return False
            self._put(key, "1", now + seconds)
            return True

    def _put(self, key: str, value: str, until: float) -> None:
        self._rows[key] = (value, until)
        self._writes += 1
        if self._writes >= SWEEP_EVERY:
            self._writes = 0
            now = self._clock()
            self._rows = {key: row for key, row in self._rows.items() if row[1] > now}
