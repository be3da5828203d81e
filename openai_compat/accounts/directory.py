"""Lookup of callers by their keys, with a cache in each process."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Final

from openai_compat.core.errors import AccountsUnavailableError, StorageUnavailableError
from openai_compat.state.base import StoreError
from openai_compat.state.ledger import Ledger
from openai_compat.storage import Storage

from .account import DEFAULT_PROJECT, Account, Caller, from_row, to_caller
from .keys import digest_of
from .restoration import LedgerRestorer

if TYPE_CHECKING:
    from openai_compat.storage.accounts import AccountRow

log = logging.getLogger(__name__)

VERSION_SECONDS: Final = 1.0
"""Time between two looks for changes, after which a revoked key is refused by all workers."""
BLIND_SECONDS: Final = 10.0
"""Time for which a key is not read again while changes cannot be seen."""
MAX_CACHED: Final = 20_000
"""Keys in each cache."""


@dataclass(slots=True)
class _Entry:
    caller: Caller | None
    version: int | None
    confirmed_at: float


class KeyDirectory:
    """The callers, by their keys.

    A caller in the cache is read again when any account has changed. While the database is away, a known one stays
    valid for `grace_seconds` after the last time that it was confirmed.
    """

    def __init__(
        self, storage: Storage, ledger: Ledger, grace_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._storage = storage
        self._ledger = ledger
        self._grace_seconds = grace_seconds
        self._clock = clock
        self._cache: OrderedDict[str, _Entry] = OrderedDict()
        self._unknown: OrderedDict[str, _Entry] = OrderedDict()
        self._restorer = LedgerRestorer(storage, ledger)
        self._version: int | None = None
        self._is_active: bool | None = None
        self._looked_at = -inf
        self._lock = Lock()

    def is_active(self) -> bool:
        """Return True once an account was made, so that every call needs a key.

        Raises:
            AccountsUnavailableError: that is unknown, because both the ledger and the database are away.
        """
        if self._clock() - self._looked_at >= VERSION_SECONDS:  # here as well, as every request comes by
            self._look_for_changes()
        if self._is_active is None:
            with self._lock:  # until the first look of another call has ended
                pass
        if self._is_active is None:
            raise AccountsUnavailableError
        return self._is_active

    def find(self, key: str) -> Caller | None:
        """Return the caller of a key, or None if there is no such key. It may be disabled or expired.

        Raises:
            AccountsUnavailableError: the database is away, and the key is not known well enough.
        """
        digest = digest_of(key)
        return self._find(digest, lambda: to_caller(*self._storage.accounts.find_with_parents(digest)))

    def look_again(self) -> None:
        """Look for changes at the next call, because this process has made one."""
        self._looked_at = -inf

    def find_in_project(self, key: Account) -> Caller | None:
        """Return the caller for a key that an identity provider vouches for, or None if its project does not exist.

        Raises:
            AccountsUnavailableError: as from `find`.
        """
        project_id = key.parent_id or DEFAULT_PROJECT
        found = self._find(project_id, lambda: _to_members(self._storage.accounts.with_parents(project_id)))
        return None if found is None else replace(found, key=key)

    def _find(self, name: str, load: Callable[[], Caller | None]) -> Caller | None:
        entry = self._cache.get(name) or self._unknown.get(name)
        self._look_for_changes()
        if entry is not None and self._is_current(entry):
            return entry.caller
        version = self._version  # a change during the reading may have been missed
        try:
            caller = load()
        except StorageUnavailableError as error:
            if entry is None or entry.caller is None or self._clock() - entry.confirmed_at > self._grace_seconds:
                raise AccountsUnavailableError from error
            return entry.caller
        self._keep(name, _Entry(caller, version, self._clock()))
        return caller

    def _is_current(self, entry: _Entry) -> bool:
        """Return True if no account has changed since the entry was read, or if it is recent and that is unknown."""
        if self._version is None:
            return self._clock() - entry.confirmed_at < BLIND_SECONDS
        if entry.version != self._version:
            return False
        entry.confirmed_at = self._looked_at
        return True

    def _keep(self, name: str, entry: _Entry) -> None:
        """Keep an entry. Unknown keys have a cache of their own, so that no number of them displaces a known one."""
        cache, other = (self._unknown, self._cache) if entry.caller is None else (self._cache, self._unknown)
        other.pop(name, None)
        cache[name] = entry
        cache.move_to_end(name)
        if len(cache) > MAX_CACHED:
            cache.popitem(last=False)

    def _look_for_changes(self) -> None:
        """Read the number of changes to the accounts, which is None while the ledger is away."""
        now = self._clock()
        if now - self._looked_at < VERSION_SECONDS:
            return
        self._looked_at = now
        with self._lock:
            self._look()

    def _look(self) -> None:
        """Read the version, and restore a ledger that has none."""
        try:
            version = self._ledger.version()
            self._version = self._restorer.restore() if version is None else version
        except StoreError as error:
            self._version = None
            log.warning("changes of accounts cannot be seen: %s", error)
        if self._version is not None:
            self._is_active = self._version > 0
        elif not self._is_active:
            self._look_for_accounts()

    def _look_for_accounts(self) -> None:
        """Ask the database whether there are accounts. Without an answer it is as before."""
        with suppress(StorageUnavailableError):
            self._is_active = not self._storage.is_new and self._storage.accounts.exist()


def _to_members(rows: Sequence[AccountRow]) -> Caller | None:
    """Return a caller whose key is the project itself, or None without a project and its organization."""
    members = {row.kind: from_row(row) for row in rows}
    if members.keys() != {"project", "organization"}:
        return None
    return Caller(members["project"], members["project"], members["organization"])
