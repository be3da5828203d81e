"""Changes of accounts, for the administration endpoints, the commands and the accounts file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from secrets import token_hex
from time import time
from typing import TYPE_CHECKING, Any, Final

from openai_compat.core.errors import InvalidRequestError, ObjectNotFoundError, RequestError
from openai_compat.state.ledger import ColdLedgerError, Ledger
from openai_compat.storage import Storage
from openai_compat.storage.records import is_valid_id

from .account import DEFAULT_ORGANIZATION, DEFAULT_PROJECT, ID_PREFIXES, Account, Kind, from_row, to_row
from .keys import digest_of, hint_of, new_key
from .policy import Policy
from .restoration import LedgerRestorer

if TYPE_CHECKING:
    from openai_compat.storage.accounts import AccountRow

MAX_NAME_CHARS: Final = 200
PARENTS: Final[dict[Kind, Kind]] = {"project": "organization", "key": "project"}


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What the caller chooses of a new account."""

    name: str
    parent_id: str | None = None
    policy: Policy = field(default_factory=Policy)
    expires_at: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    source: str = "api"


class AccountManager:
    """Creation, change and deletion of accounts. All workers see a change within a second.

    Every method raises `StorageUnavailableError` if the database is away, and `StoreError` if the ledger is.
    """

    def __init__(self, storage: Storage, ledger: Ledger, clock: Callable[[], float] = time) -> None:
        self._storage = storage
        self._ledger = ledger
        self._restorer = LedgerRestorer(storage, ledger, clock)
        self._clock = clock

    def create(self, kind: Kind, new: NewAccount) -> Account:
        """Create an organization or a project."""
        account = self._prepare(kind, new)
        self._storage.accounts.add(to_row(account))
        self._announce()
        return account

    def create_key(self, new: NewAccount) -> tuple[Account, str]:
        """Create a key, and return it with its secret, which is stored nowhere."""
        secret = new_key()
        account = replace(self._prepare("key", new), hint=hint_of(secret))
        self._storage.accounts.add(to_row(account), digest_of(secret))
        self._announce()
        return account, secret

    def rotate_key(self, id: str, overlap_seconds: float) -> tuple[Account, str]:
        """Give a key another secret. The old one is valid for `overlap_seconds` more. Limits and budgets go on.

        Raises:
            ObjectNotFoundError. RequestError: it is managed by the accounts file.
        """
        account = self.get("key", id)
        check_source(account)
        secret = new_key()
        expires_at = int(self._clock() + overlap_seconds)
        self._storage.accounts.replace_secret(id, digest_of(secret), hint_of(secret), expires_at)
        self._announce()
        return replace(account, hint=hint_of(secret)), secret

    def get(self, kind: Kind, id: str) -> Account:
        """Return one account.

        Raises:
            ObjectNotFoundError
        """
        row = self._storage.accounts.get(kind, id) if is_valid_id(id) else None
        if row is None:
            raise _not_found(kind, id)
        return from_row(row)

    def organization(self) -> Account:
        """Return the organization, which has limits and budgets for all keys together.

        Before any account was made it is not stored.
        """
        row = self._storage.accounts.get("organization", DEFAULT_ORGANIZATION)
        return self._default_accounts()[0] if row is None else from_row(row)

    def change_organization(self, changes: Mapping[str, Any]) -> Account:
        """Replace the fields `changes` of the organization, and return it.

        Raises:
            As `change`.
        """
        self.create_defaults()
        return self.change("organization", DEFAULT_ORGANIZATION, changes)

    def page(
        self, kind: Kind, parent_id: str | None, after: str | None, limit: int, *, with_disabled: bool = True
    ) -> tuple[list[Account], bool]:
        """Return accounts in the order of their creation, and whether there are more after them.

        Raises:
            UnknownCursorError: there is no account with the id `after`.
        """
        rows, has_more = self._storage.accounts.page(kind, parent_id, after, limit, with_disabled=with_disabled)
        return [from_row(row) for row in rows], has_more

    def with_limits(self, limit: int) -> list[Account]:
        """Return up to `limit` accounts that have limits or budgets of their own, in the order of their creation."""
        if self._storage.is_new:
            return []
        return [from_row(row) for row in self._storage.accounts.with_limits(limit)]

    def change(self, kind: Kind, id: str, changes: Mapping[str, Any]) -> Account:
        """Replace the fields `changes` of an account, and return it. Other changes at the same time are kept.

        Raises:
            ObjectNotFoundError. InvalidRequestError: it has no valid name.
            RequestError: it is managed by the accounts file.
        """

        def merge(row: AccountRow) -> AccountRow:
            account = from_row(row)
            check_source(account)
            changed = replace(account, **changes)
            _check_name(changed.name)
            return to_row(changed)

        row = self._storage.accounts.change(kind, id, merge) if is_valid_id(id) else None
        if row is None:
            raise _not_found(kind, id)
        self._announce()
        return from_row(row)

    def delete(self, account: Account) -> None:
        """Delete an account. Its usage is kept.

        Raises:
            ObjectNotFoundError. RequestError: it is managed by the accounts file.
        """
        check_source(account)
        if not self._storage.accounts.delete(account.kind, account.id):
            raise _not_found(account.kind, account.id)
        self._announce()

    def _announce(self) -> None:
        """Tell all workers of a change. A ledger without a version is started, so that the first call finds it so."""
        if self._ledger.version() is not None:
            self._ledger.bump_version()
            return
        with suppress(ColdLedgerError):  # another process restores it, or the next call does
            self._restorer.restore()

    def _prepare(self, kind: Kind, new: NewAccount) -> Account:
        _check_name(new.name)
        return Account(
            id=ID_PREFIXES[kind] + token_hex(12),
            kind=kind,
            name=new.name,
            created_at=int(self._clock()),
            parent_id=self._parent(kind, new.parent_id),
            expires_at=new.expires_at,
            source=new.source,
            policy=new.policy,
            metadata=new.metadata,
            tags=new.tags,
        )

    def _parent(self, kind: Kind, id: str | None) -> str | None:
        """Return the id of the parent, the default one if none is named.

        Raises:
            ObjectNotFoundError
        """
        parent_kind = PARENTS.get(kind)
        if parent_kind is None:
            return None
        if id is not None:
            return self.get(parent_kind, id).id
        self.create_defaults()
        return DEFAULT_PROJECT if kind == "key" else DEFAULT_ORGANIZATION

    def create_defaults(self) -> None:
        """Create the default organization and project, unless they exist."""
        from openai_compat.storage.accounts import AccountExistsError

        is_new = False
        for account in self._default_accounts():
            with suppress(AccountExistsError):
                self._storage.accounts.add(to_row(account))
                is_new = True
        if is_new:
            self._announce()

    def _default_accounts(self) -> tuple[Account, Account]:
        now = int(self._clock())
        return (
            Account(DEFAULT_ORGANIZATION, "organization", "Default organization", now),
            Account(DEFAULT_PROJECT, "project", "Default project", now, DEFAULT_ORGANIZATION),
        )


def check_source(account: Account) -> None:
    """Refuse a change of an account that the accounts file describes, as the next start would undo it.

    Raises:
        RequestError
    """
    if account.source == "file":
        raise RequestError(
            f"The {account.kind} '{account.id}' is managed by the accounts file. Change it there.",
            code="managed_by_file",
        )


def _not_found(kind: Kind, id: str) -> ObjectNotFoundError:
    return ObjectNotFoundError(f"There is no {kind} with the id '{id[:100]}'.")


def _check_name(name: str) -> None:
    if not name.strip() or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise InvalidRequestError(
            f"'name' must be a text of 1 to {MAX_NAME_CHARS} printable characters.", param="name", code="invalid_value"
        )
