"""Application of the accounts file to the database, at the start of each worker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from openai_compat.core.errors import StorageUnavailableError
from openai_compat.core.settings import DeclaredAccount
from openai_compat.state.base import StoreError
from openai_compat.state.ledger import Ledger
from openai_compat.storage import Storage

from .account import DEFAULT_ORGANIZATION, ID_PREFIXES, Account, Kind, to_row
from .manager import AccountManager
from .policy import parse_policy
from .restoration import LedgerRestorer

if TYPE_CHECKING:
    from openai_compat.storage.accounts import AccountRow

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 0.5
LEASE_NAME: Final = "accounts-file"
SOURCE: Final = "file"


class AccountsFile:
    """The accounts of the file. What vanished from the file is disabled, and its usage and meters are kept."""

    def __init__(self, declared: Sequence[DeclaredAccount], storage: Storage, ledger: Ledger) -> None:
        self._accounts = {account.id: account for account in map(to_account, declared)}
        self._secrets = {to_id(one): (one.digest, one.hint) for one in declared if one.digest and one.hint}
        self._storage = storage
        self._ledger = ledger
        self._is_closed = threading.Event()
        self.is_applied = False
        """True once the database has the accounts, so that an unknown key is known not to exist."""

    def start(self) -> None:
        """Apply the file in a thread (under gevent, a greenlet), and try again while a store is away."""
        threading.Thread(target=self._apply_until_done, daemon=True).start()

    def close(self) -> None:
        """Stop trying."""
        self._is_closed.set()

    def _apply_until_done(self) -> None:
        while not self.is_applied and not self._is_closed.is_set():
            try:
                self.is_applied = self.apply()
            except (StorageUnavailableError, StoreError) as error:
                log.warning("the accounts file cannot be applied yet: %s", error)
            if not self.is_applied:
                self._is_closed.wait(RETRY_SECONDS)

    def apply(self) -> bool:
        """Bring the database in line with the file. Return False if another process does it at the moment.

        Raises:
            StorageUnavailableError, StoreError
        """
        lease = self._storage.leases.acquire(LEASE_NAME)
        if lease is None:
            return False
        try:
            AccountManager(self._storage, self._ledger).create_defaults()
            before = {row.id: row for row in self._storage.accounts.all_of_source(SOURCE)}
            changes = [self._put_unless_taken(account, before) for account in self._accounts.values()]
            changes += [self._retire(row) for id, row in before.items() if id not in self._accounts]
            if any(changes):
                self._ledger.bump_version()
            if self._ledger.version() is None:
                LedgerRestorer(self._storage, self._ledger).restore()
        finally:
            lease.release()
        return True

    def _put_unless_taken(self, account: Account, before: Mapping[str, AccountRow]) -> bool:
        """Store an account of the file, unless its secret is that of another key."""
        from openai_compat.storage.accounts import AccountExistsError

        try:
            return self._put(account, before)
        except AccountExistsError:
            log.error("the key '%s' of the accounts file has the secret of another key, and is left out", account.name)
            return False

    def _put(self, account: Account, before: Mapping[str, AccountRow]) -> bool:
        """Store an account of the file. Return True if it is new or has changed."""
        digest, hint = self._secrets.get(account.id, (None, None))
        row = replace(to_row(account), hint=hint)
        present = before.get(account.id) or self._storage.accounts.get(account.kind, account.id)
        if present is None:
            self._storage.accounts.add(row, digest)
            return True
        is_changed = replace(row, created_at=present.created_at, hint=present.hint) != present
        if is_changed:
            self._storage.accounts.replace(row)
        if digest is None or hint is None:
            return is_changed
        return self._storage.accounts.set_secret(account.id, digest, hint) or is_changed

    def _retire(self, row: AccountRow) -> bool:
        """Disable an account that is not in the file any more. The organization goes on, managed by requests."""
        retired = replace(row, source="api") if row.kind == "organization" else replace(row, is_enabled=False)
        return retired != row and self._storage.accounts.replace(retired)


def to_account(declared: DeclaredAccount) -> Account:
    """Return the account that the file describes."""
    kind: Any = declared.kind
    return Account(
        id=to_id(declared),
        kind=kind,
        name=declared.name,
        created_at=int(time.time()),
        parent_id=_parent_id(declared),
        expires_at=declared.expires_at,
        is_enabled=declared.is_enabled,
        source=SOURCE,
        policy=parse_policy(declared.policy),
        metadata=dict(declared.metadata),
        tags=declared.tags,
    )


def to_id(declared: DeclaredAccount) -> str:
    """Return the id, which follows from the names, so that an unchanged account keeps its usage and its meters."""
    if declared.kind == "organization":
        return DEFAULT_ORGANIZATION
    if declared.kind == "project":
        return _derive("project", declared.name)
    return _derive("key", f"{declared.project}\n{declared.name}")


def _parent_id(declared: DeclaredAccount) -> str | None:
    if declared.kind == "organization":
        return None
    return DEFAULT_ORGANIZATION if declared.project is None else _derive("project", declared.project)


def _derive(kind: Kind, name: str) -> str:
    return ID_PREFIXES[kind] + sha256(f"file\n{name}".encode()).hexdigest()[:24]
