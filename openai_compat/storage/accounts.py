"""Store of organizations, projects and keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, Update, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from .account_tables import accounts, secrets
from .database import Database
from .pages import UnknownCursorError


class AccountExistsError(Exception):
    """There is an account with this id or key already."""


@dataclass(frozen=True, slots=True)
class AccountRow:
    """An organization, a project or a key. `body` is the JSON of what the database does not search for.

    Times are Unix times in seconds.
    """

    id: str
    kind: str
    parent_id: str | None
    name: str
    created_at: int
    expires_at: int | None
    is_enabled: bool
    source: str
    hint: str | None
    body: str


class AccountStore:
    """The accounts. Every method raises `StorageUnavailableError` if the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, row: AccountRow, digest: str | None = None) -> None:
        """Store a new account, and the digest of its secret if it is a key.

        Raises:
            AccountExistsError
        """

        def work(connection: Connection) -> None:
            connection.execute(insert(accounts), _to_values(row))
            if digest is not None:
                connection.execute(insert(secrets), {"digest": digest, "account_id": row.id})

        try:
            self._database.write(work)
        except IntegrityError as error:
            raise AccountExistsError from error

    def replace_secret(self, id: str, digest: str, hint: str, expires_at: int) -> None:
        """Give a key another secret. Those that it has expire at the time `expires_at`, if not before."""

        def work(connection: Connection) -> None:
            later = or_(secrets.c.expires_at.is_(None), secrets.c.expires_at > expires_at)
            own = secrets.c.account_id == id
            connection.execute(update(secrets).where(own, later).values(expires_at=expires_at))
            connection.execute(insert(secrets), {"digest": digest, "account_id": id})
            connection.execute(update(accounts).where(accounts.c.id == id).values(hint=hint))

        self._database.write(work)

    def set_secret(self, id: str, digest: str, hint: str) -> bool:
        """Make this secret the only one of a key. Return False if it was before.

        Raises:
            AccountExistsError: it is the secret of another key.
        """

        def work(connection: Connection) -> bool:
            own = secrets.c.account_id == id
            present = connection.execute(select(secrets.c.digest).where(own, secrets.c.expires_at.is_(None))).scalars()
            if list(present) == [digest]:
                return False
            connection.execute(delete(secrets).where(own))
            connection.execute(insert(secrets), {"digest": digest, "account_id": id})
            connection.execute(update(accounts).where(accounts.c.id == id).values(hint=hint))
            return True

        try:
            return self._database.write(work)
        except IntegrityError as error:
            raise AccountExistsError from error

    def get(self, kind: str, id: str) -> AccountRow | None:
        """Return one account, or None."""
        return self._find_one(_select().where(accounts.c.id == id, accounts.c.kind == kind))

    def find_with_parents(self, digest: str) -> tuple[list[AccountRow], int | None]:
        """Return the key whose secret has this digest, then its project and its organization, and the secret's expiry.

        The list is empty without such a key.
        """

        def work(connection: Connection) -> tuple[list[AccountRow], int | None]:
            secret = connection.execute(select(secrets).where(secrets.c.digest == digest)).first()
            return ([], None) if secret is None else (_ancestry(connection, secret.account_id), secret.expires_at)

        return self._database.read(work)

    def with_parents(self, id: str) -> list[AccountRow]:
        """Return an account, then the one that it belongs to, and so on. The list is empty without such an account."""
        return self._database.read(lambda connection: _ancestry(connection, id))

    def page(
        self, kind: str, parent_id: str | None, after: str | None, limit: int, *, with_disabled: bool = True
    ) -> tuple[list[AccountRow], bool]:
        """Return the accounts of one parent in the order of their creation, and whether there are more.

        None as the parent stands for any.

        Raises:
            UnknownCursorError: there is no account with the id `after`.
        """
        statement = _select().where(accounts.c.kind == kind)
        if parent_id is not None:
            statement = statement.where(accounts.c.parent_id == parent_id)
        if not with_disabled:
            statement = statement.where(accounts.c.is_enabled)
        ordered = statement.order_by(accounts.c.number).limit(limit + 1)

        def work(connection: Connection) -> Sequence[Row[Any]]:
            if after is None:
                return connection.execute(ordered).all()
            start = connection.execute(select(accounts.c.number).where(accounts.c.id == after)).scalar()
            if start is None:
                raise UnknownCursorError
            return connection.execute(ordered.where(accounts.c.number > start)).all()

        rows = self._database.read(work)
        return [_to_row(row) for row in rows[:limit]], len(rows) > limit

    def change(self, kind: str, id: str, merge: Callable[[AccountRow], AccountRow]) -> AccountRow | None:
        """Store `merge(row)` of an account and return it, or None if there is no account with this id.

        No other change happens between the reading and the writing. What `merge` raises leaves the account as it is.
        """
        present = _select().where(accounts.c.id == id, accounts.c.kind == kind).with_for_update()

        def work(connection: Connection) -> AccountRow | None:
            row = connection.execute(present).first()  # SQLite has no FOR UPDATE, but a lock on the whole file
            if row is None:
                return None
            merged = merge(_to_row(row))
            connection.execute(_update(merged))
            return merged

        return self._database.write(work)

    def replace(self, row: AccountRow) -> bool:
        """Replace what may change of an account. Return False if there is none with this id."""
        return bool(self._database.write(lambda connection: connection.execute(_update(row)).rowcount))

    def delete(self, kind: str, id: str) -> bool:
        """Delete an account. Return False if there is none with this id."""
        statement = delete(accounts).where(accounts.c.id == id, accounts.c.kind == kind)
        return bool(self._database.write(lambda connection: connection.execute(statement).rowcount))

    def all_of_source(self, source: str) -> Sequence[AccountRow]:
        """Return all accounts of one source."""
        statement = _select().where(accounts.c.source == source).order_by(accounts.c.number)
        return [_to_row(row) for row in self._database.read(lambda connection: connection.execute(statement).all())]

    def exist(self) -> bool:
        """Return True if there is any account."""
        return self._find_one(_select().limit(1)) is not None

    def with_budgets(self, after: str, limit: int) -> list[AccountRow]:
        """Return accounts with a budget in the order of their ids, after the id `after`."""
        statement = _select().where(accounts.c.id > after, accounts.c.body.contains('"amount":'))
        ordered = statement.order_by(accounts.c.id).limit(limit)
        return [_to_row(row) for row in self._database.read(lambda connection: connection.execute(ordered).all())]

    def with_limits(self, limit: int) -> list[AccountRow]:
        """Return the oldest accounts with a budget or a limit."""
        names = ('"amount":', "_per_", '"concurrent_requests":')
        has_one = or_(*(accounts.c.body.contains(name, autoescape=True) for name in names))
        ordered = _select().where(has_one).order_by(accounts.c.number).limit(limit)
        return [_to_row(row) for row in self._database.read(lambda connection: connection.execute(ordered).all())]

    def _find_one(self, statement: Select[Any]) -> AccountRow | None:
        row = self._database.read(lambda connection: connection.execute(statement).first())
        return None if row is None else _to_row(row)


def _ancestry(connection: Connection, id: str | None) -> list[AccountRow]:
    found: list[AccountRow] = []
    while id is not None:
        row = connection.execute(_select().where(accounts.c.id == id)).first()
        if row is None:
            break
        found.append(_to_row(row))
        id = row.parent_id
    return found


def _update(row: AccountRow) -> Update:
    """Return the statement that replaces what may change of an account. A secret is replaced together with its hint."""
    return (
        update(accounts)
        .where(accounts.c.id == row.id, accounts.c.kind == row.kind)
        .values(name=row.name, expires_at=row.expires_at, is_enabled=row.is_enabled, source=row.source, body=row.body)
    )


def _select() -> Select[Any]:
    return select(*(accounts.c[name] for name in AccountRow.__slots__))


def _to_row(row: Row[Any]) -> AccountRow:
    return AccountRow(*(getattr(row, name) for name in AccountRow.__slots__))


def _to_values(row: AccountRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in AccountRow.__slots__}
