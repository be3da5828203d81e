"""State store that falls back to process memory while the shared store is unavailable."""

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
"""Seconds without a call to the shared store after a failure, as each one may take its complete timeout."""


class FallbackStore(StateStore):
    """Store that calls `shared`, and a `MemoryStore` while `shared` is unavailable.

    Workers do not share their state meanwhile.
    """

    def __init__(self, shared: StateStore, clock: Callable[[], float] = monotonic) -> None:
        self._shared = shared
        self._local = MemoryStore()
        self._clock = clock
        self._retry_at = 0.0

    def read(self, keys: Sequence[str]) -> Mapping[str, str]:
        return self._call(lambda store: store.read(keys))

    def write(self, key: str, value: str, seconds: float) -> None:
        self._call(lambda store: store.write(key, value, seconds))

    def delete(self, key: str) -> None:
        self._call(lambda store: store.delete(key))

    def increment(self, key: str, amount: int, seconds: float) -> int:
        return self._call(lambda store: store.increment(key, amount, seconds))

    def set_if_absent(self, key: str, seconds: float) -> bool:
        return self._call(lambda store: store.set_if_absent(key, seconds))

    @property
    def is_available(self) -> bool:
        return self._clock() >= self._retry_at

    def close(self) -> None:
        self._shared.close()

    def _call(self, operation: Callable[[StateStore], T]) -> T:
        if self._clock() >= self._retry_at:
            try:
                return operation(self._shared)
            except StoreError as error:
                self._retry_at = self._clock() + RETRY_INTERVAL
                log.warning("the shared state is unavailable, each worker uses its own for now: %s", error)
        return operation(self._local)
