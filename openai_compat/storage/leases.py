"""Locks that all processes of a database share, as leases that expire after a crash of their holder."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from secrets import token_hex
from time import time
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from openai_compat.core.errors import StorageUnavailableError

from .database import Database
from .tables import leases

log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 30.0
"""Time after which the lease of a crashed process expires."""
RENEWAL_INTERVAL: Final = 10.0


class Lease:
    """A held lease. It is renewed until it is released."""

    def __init__(self, name: str, holder: str, release: Callable[[Lease], None]) -> None:
        self.name = name
        self.holder = holder
        self._release = release

    def release(self) -> None:
        """Give the lease up. A failure only means that it expires by itself."""
        self._release(self)


class LeaseStore:
    """Leases of this process, which one thread renews while there are any."""

    def __init__(self, database: Database, clock: Callable[[], float] = time) -> None:
        self._database = database
        self._clock = clock
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._is_idle = threading.Event()
        self._is_renewing = False

    def acquire(self, name: str, seconds: float = LEASE_SECONDS) -> Lease | None:
        """Return the lease, or None if another call holds it.

        Raises:
            StorageUnavailableError
        """
        lease = Lease(name, token_hex(16), self._release)
        now = self._clock()

        def work(connection: Connection) -> None:
            connection.execute(delete(leases).where(leases.c.name == name, leases.c.expires_at <= now))
            connection.execute(insert(leases).values(name=name, holder=lease.holder, expires_at=now + seconds))

        try:
            self._database.write(work)
        except IntegrityError:
            return None
        self._keep(lease)
        return lease

    def is_held(self, name: str) -> bool:
        """Return True if any process holds the lease.

        Raises:
            StorageUnavailableError
        """
        statement = select(leases.c.name).where(leases.c.name == name, leases.c.expires_at > self._clock())
        return self._database.read(lambda connection: connection.execute(statement).first()) is not None

    def close(self) -> None:
        """Stop the renewal. Leases that are still held expire by themselves."""
        with self._lock:
            self._held.clear()
            self._is_idle.set()

    def _keep(self, lease: Lease) -> None:
        with self._lock:
            self._held.add(lease.holder)
            self._is_idle.clear()
            if self._is_renewing:
                return
            self._is_renewing = True
        threading.Thread(target=self._renew_while_held, daemon=True).start()

    def _release(self, lease: Lease) -> None:
        with self._lock:
            self._held.discard(lease.holder)
            if not self._held:
                self._is_idle.set()
        try:
            self._database.write(lambda connection: connection.execute(_delete_lease(lease.holder)).close())
        except StorageUnavailableError:
            log.info("a lease could not be released and expires within %s s", LEASE_SECONDS)

    def _renew_while_held(self) -> None:
        while True:
            self._is_idle.wait(RENEWAL_INTERVAL)
            with self._lock:
                held = list(self._held)
                if not held:
                    self._is_renewing = False
                    return
            try:
                self._renew(held)
            except StorageUnavailableError:
                log.warning("leases could not be renewed")

    def _renew(self, held: list[str]) -> None:
        statement = update(leases).where(leases.c.holder.in_(held)).values(expires_at=self._clock() + LEASE_SECONDS)
        self._database.write(lambda connection: connection.execute(statement).close())


def _delete_lease(holder: str) -> Any:
    return delete(leases).where(leases.c.holder == holder)
