"""Store of the usage of calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from .account_tables import usage, usage_hours
from .database import Database

HOUR: Final = 3600
BATCH: Final = 500
"""Rows deleted in one transaction, which other writers wait for."""
_GROUP: Final = ("hour", "organization_id", "project_id", "key_id", "endpoint", "model")
_SUMS: Final = (
    "calls", "errors", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens",
    "cost_nano",
)  # fmt: skip


class UsageStore:
    """Rows of calls and their hourly sums. Every method raises `StorageUnavailableError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store rows and add them to the sums, in one transaction. Rows whose `id` is stored already are left out."""

        def work(connection: Connection) -> None:
            new = _insert_new(connection, rows)
            if new:
                connection.execute(_upsert(connection), _sum_by_hour(new))

        self._database.write(work)

    def spent(self, level: str, id: str, start: float, end: float) -> int:
        """Return the cost in nano-dollars of all calls of an account from `start` until before `end`.

        `level` is `organization`, `project` or `key`.
        """
        statement = select(func.coalesce(func.sum(usage.c.cost_nano), 0)).where(
            usage.c[f"{level}_id"] == id, usage.c.at >= start, usage.c.at < end
        )
        return int(self._database.read(lambda connection: connection.execute(statement).scalar_one()))

    def delete_before(self, at: int) -> int:
        """Delete up to `BATCH` rows of calls before the time `at`, and return their number. The sums are kept."""
        oldest = select(usage.c.number).where(usage.c.at < at).order_by(usage.c.at).limit(BATCH).scalar_subquery()
        statement = delete(usage).where(usage.c.number.in_(oldest))
        return int(self._database.write(lambda connection: connection.execute(statement).rowcount))


def _insert_new(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Insert the rows that are not stored yet and return them. Concurrent writers of the same rows cannot both."""
    statement = _insert(connection, usage).on_conflict_do_nothing(index_elements=["id"]).returning(usage.c.id)
    inserted = {id for row in rows for id in connection.execute(statement, row).scalars()}
    return [row for row in rows if row["id"] in inserted]


def _sum_by_hour(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    sums: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        group = {name: row.get(name) or "" for name in _GROUP} | {"hour": row["at"] - row["at"] % HOUR}
        added = sums.setdefault(tuple(group.values()), {**group, **dict.fromkeys(_SUMS, 0)})
        for name in _SUMS:
            added[name] += _amount(row, name)
    return [sums[group] for group in sorted(sums)]  # in one order for all writers, which therefore cannot deadlock


def _amount(row: Mapping[str, Any], name: str) -> int:
    if name == "calls":
        return 1
    if name == "errors":
        return int(row["status"] >= 400)
    return int(row[name] or 0)


def _upsert(connection: Connection) -> Any:
    statement = _insert(connection, usage_hours)
    sums = {name: usage_hours.c[name] + statement.excluded[name] for name in _SUMS}
    return statement.on_conflict_do_update(index_elements=list(_GROUP), set_=sums)


def _insert(connection: Connection, table: Table) -> Any:
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)
