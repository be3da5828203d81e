"""The seam for what workers share: small values that expire, counters, and claims that one of them wins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence


class StoreError(Exception):
    """The store could not be asked. Whoever uses one goes on without it."""


class StateStore(ABC):
    """Keys are texts, values short texts; everything expires. Every call is atomic among all who share the store, and
    brief: what takes longer than a few milliseconds (a Redis: `SOCKET_TIMEOUT` of it) is given up.

    Raises:
        StoreError: from every method but `close`.
    """

    @abstractmethod
    def read(self, keys: Sequence[str]) -> Mapping[str, str]:
        """The values of those `keys` that there are."""

    @abstractmethod
    def write(self, key: str, value: str, seconds: float) -> None:
        """Keeps `value` for `seconds`."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Removes what was written, added or claimed."""

    @abstractmethod
    def increment(self, key: str, amount: int, seconds: float) -> int:
        """Adds to a counter and returns its new value; it begins at 0, and anew `seconds` after its first addition."""

    @abstractmethod
    def set_if_absent(self, key: str, seconds: float) -> bool:
        """Whether the caller is the one that gets `key`: nobody else does for `seconds`, or until it is forgotten."""

    def close(self) -> None:  # noqa: B027 - not every store opens something
        """Gives back what was opened."""
