"""Deletion of expired objects, and of the oldest ones while all of them take too much space."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from sqlalchemy import ColumnElement, Connection, delete, func, select

from openai_compat.core.errors import StorageUnavailableError

from .database import Database
from .leases import LeaseStore
from .objects import Lifetime
from .tables import objects

log = logging.getLogger(__name__)

BATCH: Final = 50
"""Objects deleted in one transaction, which other writers wait for."""
SWEEP_INTERVAL: Final = 60.0
"""Seconds between two sweeps of one process."""
LEASE_NAME: Final = "expiry"


class Expiry:
    """Sweeps, which a process starts after a write and at most once in `SWEEP_INTERVAL`.

    An expired object is invisible at once, also before it is deleted.
    """

    def __init__(self, database: Database, leases: LeaseStore, lifetime: Lifetime, max_bytes: int) -> None:
        self._database = database
        self._leases = leases
        self._lifetime = lifetime
        self._max_bytes = max_bytes
        self._next_at = 0.0

    def start_if_due(self) -> None:
        """Start a sweep in a thread (under gevent, a greenlet) if the last one was long enough ago."""
        now = time.monotonic()
        if now >= self._next_at and (self._lifetime.seconds or self._max_bytes):
            self._next_at = now + SWEEP_INTERVAL
            threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            lease = self._leases.acquire(LEASE_NAME)
            if lease is not None:  # otherwise another process sweeps
                try:
                    self.sweep()
                finally:
                    lease.release()
        except StorageUnavailableError:
            log.info("expired objects could not be deleted, the next sweep does")

    def sweep(self) -> None:
        """Delete what has expired, then the oldest objects beyond the limit, in small transactions.

        Raises:
            StorageUnavailableError
        """
        while self._lifetime.seconds and self._delete_batch(~self._lifetime.is_alive(), 0):
            pass
        if self._max_bytes:
            excess = self._database.read(_total_size) - self._max_bytes
            while excess > 0 and (freed := self._delete_batch(None, excess)):
                excess -= freed

    def _delete_batch(self, condition: ColumnElement[bool] | None, excess: int) -> int:
        """Delete up to `BATCH` of the oldest objects that meet `condition`, and return the size of the deleted ones.

        Without a condition, delete until `excess` bytes are freed.
        """
        oldest = select(objects.c.number, objects.c.size).order_by(objects.c.used_at, objects.c.number).limit(BATCH)

        def work(connection: Connection) -> int:
            numbers, freed = [], 0
            for number, size in connection.execute(oldest if condition is None else oldest.where(condition)):
                if condition is None and freed >= excess:
                    break
                numbers.append(number)
                freed += size
            connection.execute(delete(objects).where(objects.c.number.in_(numbers)))
            return freed

        return self._database.write(work)


def _total_size(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.sum(objects.c.size), 0))).scalar_one())
