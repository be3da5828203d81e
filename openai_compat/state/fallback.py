"""A store that never fails anybody: while the shared one is out of order, this process remembers for itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Final, TypeVar

from .base import StateStore, StoreError
from .memory import MemoryStore

log = logging.getLogger(__name__)

T = TypeVar("T")
RETRY_INTERVAL: Final = 5.0
"""After a failure the store is not asked for so long: each call to one that is gone may take its whole time limit."""


class FallbackStore(StateStore):
    """Asks `shared`, and a memory of its own where that fails: workers then know less of each other, and no more."""

    def __init__(self, shared: StateStore, clock: Callable[[], float] = monotonic) -> None:
        self._shared = shared
        self._own = MemoryStore()
        self._clock = clock
        self._rests_until = 0.0

    def read(self, keys: Sequence[str]) -> Mapping[str, str]:
        return self._ask(lambda store: store.read(keys))

    def write(self, key: str, value: str, seconds: float) -> None:
        self._ask(lambda store: store.write(key, value, seconds))

    def delete(self, key: str) -> None:
        self._ask(lambda store: store.delete(key))

    def increment(self, key: str, amount: int, seconds: float) -> int:
        return self._ask(lambda store: store.increment(key, amount, seconds))

    def set_if_absent(self, key: str, seconds: float) -> bool:
        return self._ask(lambda store: store.set_if_absent(key, seconds))

    def close(self) -> None:
        self._shared.close()

    def _ask(self, question: Callable[[StateStore], T]) -> T:
        if self._clock() >= self._rests_until:
            try:
                return question(self._shared)
            except StoreError as error:
                self._rests_until = self._clock() + RETRY_INTERVAL
                log.warning("the shared state cannot be had, each worker goes by its own for now: %s", error)
        return question(self._own)
