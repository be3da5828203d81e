"""State store in the memory of one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from time import time
from typing import Final

from .base import StateStore

WRITES_PER_SWEEP: Final = 1000
"""Number of writes after which expired entries are deleted."""


class MemoryStore(StateStore):
    """Store in a dictionary, for a server with one worker and for `FallbackStore`."""

    def __init__(self, clock: Callable[[], float] = time) -> None:
        self._clock = clock
        self._entries: dict[str, tuple[str, float]] = {}
        self._lock = Lock()
        self._writes = 0

    def read(self, keys: Sequence[str]) -> Mapping[str, str]:
        now = self._clock()
        found = {key: self._entries.get(key) for key in keys}
        return {key: entry[0] for key, entry in found.items() if entry is not None and entry[1] > now}

    def write(self, key: str, value: str, seconds: float) -> None:
        with self._lock:
            self._put(key, value, self._clock() + seconds)

    def delete(self, key: str) -> None:
        with self._lock:
            self._entries.pop(key, None)

    def increment(self, key: str, amount: int, seconds: float) -> int:
        with self._lock:
            now = self._clock()
            value, expires_at = self._entries.get(key, ("0", 0.0))
            if expires_at <= now:
                value, expires_at = "0", now + seconds
            total = int(value) + amount
            self._put(key, str(total), expires_at)
            return total

    def set_if_absent(self, key: str, seconds: float) -> bool:
        with self._lock:
            now = self._clock()
            if key in self._entries and self._entries[key][1] > now:
                return False
            self._put(key, "1", now + seconds)
            return True

    def _put(self, key: str, value: str, expires_at: float) -> None:
        self._entries[key] = (value, expires_at)
        self._writes += 1
        if self._writes >= WRITES_PER_SWEEP:
            self._writes = 0
            now = self._clock()
            self._entries = {key: entry for key, entry in self._entries.items() if entry[1] > now}
