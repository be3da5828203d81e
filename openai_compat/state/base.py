"""Interface of the state that workers share.

It holds small values that expire, counters and locks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence


class StoreError(Exception):
    """The store is unavailable. Callers continue without it."""


class StateStore(ABC):
    """Key-value store of short strings that expire.

    Each operation is atomic among all users of the store. As it blocks the worker, it fails with `StoreError` after a
    few milliseconds, or for Redis after its `SOCKET_TIMEOUT`. Only `close` never raises `StoreError`.
    """

    @abstractmethod
    def read(self, keys: Sequence[str]) -> Mapping[str, str]:
        """Return the values of those `keys` that exist."""

    @abstractmethod
    def write(self, key: str, value: str, seconds: float) -> None:
        """Store `value` for `seconds`."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete `key`."""

    @abstractmethod
    def increment(self, key: str, amount: int, seconds: float) -> int:
        """Add `amount` to a counter and return the new value.

        A counter starts at 0, and restarts `seconds` after its first increment.
        """

    @abstractmethod
    def set_if_absent(self, key: str, seconds: float) -> bool:
        """Return True if `key` was absent, and store it for `seconds`.

        Of several concurrent callers, a single one gets True.
        """

    @property
    def is_available(self) -> bool:
        """False while the shared store is unavailable, as far as this process knows."""
        return True

    def close(self) -> None:  # noqa: B027 - not every store has resources
        """Release the store's resources."""
