"""Limit on the memory that several greenlets use together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import OverloadedError


class ByteBudget:
    """Budget of `limit` bytes, from which each user takes more and more until it is done. 0 means no limit.

    `exclusive` is a lock for work that needs several times the bytes of its user.
    """

    def __init__(self, limit: int) -> None:
        self.exclusive = threading.Lock()
        self._limit = limit
        self._used = 0

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Yield a share that grows within the `with` block and is returned at its end."""
        share = Share(self)
        try:
            yield share
        finally:
            share.close()

    def take(self, count: int) -> None:
        """Take `count` bytes.

        Raises:
            OverloadedError: fewer are left.
        """
        if self._limit and self._used + count > self._limit:
            raise OverloadedError(message="The server is receiving too many request bodies. Please try again later.")
        self._used += count

    def give_back(self, count: int) -> None:
        """Return `count` bytes."""
        self._used -= count


class Share:
    """Part of a budget that one user has taken. It takes nothing more once it is closed."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._taken = 0
        self._is_closed = False

    def add(self, count: int) -> None:
        """Take `count` bytes more.

        Raises:
            OverloadedError: fewer are left in the budget.
        """
        if not self._is_closed:
            self._budget.take(count)
            self._taken += count

    def close(self) -> None:
        """Return all bytes to the budget."""
        self._is_closed = True
        self._budget.give_back(self._taken)
