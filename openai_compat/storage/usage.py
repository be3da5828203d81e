"""Store of the usage of calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import inf, isinf
from operator import add, itemgetter
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, Table, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from .account_tables import usage, usage_days, usage_hours
from .database import Database
from .usage_insertion import insert_new

HOUR: Final = 3600
DAY: Final = 86_400
BATCH: Final = 500
"""Rows deleted in one transaction, which other writers wait for."""
_SUMS: Final = (
    "calls", "errors", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens",
    "cost_nano",
)  # fmt: skip
_HOUR_KEYS: Final = tuple(usage_hours.primary_key.columns.keys())
_DAY_KEYS: Final = tuple(usage_days.primary_key.columns.keys())
_names_of: Final = itemgetter(*_HOUR_KEYS[1:])
_amounts_of: Final = itemgetter(*_SUMS[2:])
_Sums = dict[tuple[Any, ...], list[int]]


class UsageStore:
    """Rows of calls and their hourly sums. Every method raises `StorageUnavailableError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store rows and add them to the sums, in one transaction. Rows whose `id` is stored already are left out."""

        def work(connection: Connection) -> None:
            if stored := insert_new(connection, ordered):
                hours = _sum_by_hour(stored)
                connection.execute(_upsert(connection, usage_hours), hours)
                connection.execute(_upsert(connection, usage_days), _sum_by_day(hours))

        ordered = sorted(rows, key=itemgetter("id"))  # as by all writers, which therefore cannot deadlock
        self._database.write(work)

    def spent(self, level: str, ids: Sequence[str], start: float, end: float = inf) -> dict[str, int]:
        """Return the cost in nano-dollars of all calls from `start` until before `end`, for accounts that had any.

        `level` is `organization`, `project` or `key`. Whole hours are read from their sums, which are kept for longer
        than the rows and are fewer.
        """
        first = -(-start // HOUR) * HOUR
        last = inf if isinf(end) else max(end // HOUR * HOUR, first)
        costs: Counter[str] = Counter()

        def work(connection: Connection) -> None:
            for statement in (
                _costs(usage_hours, f"{level}_id", usage_hours.c.hour, ids, first, last),
                _costs(usage, f"{level}_id", usage.c.at, ids, start, min(first, end)),
                _costs(usage, f"{level}_id", usage.c.at, ids, last, end),
            ):
                if statement is not None:
                    costs.update({id: int(cost) for id, cost in connection.execute(statement)})

        self._database.read(work)
        return dict(costs)

    def spent_by_end_user(self, level: str, id: str, start: float, end: float = inf) -> dict[str, int]:
        """Return the cost in nano-dollars of the calls of an account by the end users that they name."""
        statement = _costs(usage, "end_user", usage.c.at, None, start, end)
        if statement is None:
            return {}
        own = statement.where(usage.c[f"{level}_id"] == id, usage.c.end_user.is_not(None))
        return {name: int(cost) for name, cost in self._database.read(lambda database: database.execute(own).all())}

    def delete_before(self, at: int) -> int:
        """Delete up to `BATCH` rows of calls before the time `at`, and return their number. The sums are kept."""
        oldest = select(usage.c.number).where(usage.c.at < at).order_by(usage.c.at).limit(BATCH).scalar_subquery()
        statement = delete(usage).where(usage.c.number.in_(oldest))
        return int(self._database.write(lambda connection: connection.execute(statement).rowcount))


def _costs(
    table: Table, group: str, at: ColumnElement[int], ids: Sequence[str] | None, start: float, end: float
) -> Select[Any] | None:
    """Return the query for the costs from `start` until before `end`, or None if there is no time between them."""
    if start >= end:
        return None
    statement = select(table.c[group], func.sum(table.c.cost_nano)).where(at >= int(start)).group_by(table.c[group])
    if ids is not None:
        statement = statement.where(table.c[group].in_(ids))
    with_costs = statement.having(func.sum(table.c.cost_nano) > 0)
    return with_costs if isinf(end) else with_costs.where(at < int(end))


def _sum_by_hour(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the sums of rows, in one order for all writers, which therefore cannot deadlock."""
    sums: _Sums = {}
    for row in rows:
        hour = row["at"] // HOUR * HOUR
        group = (hour, *[name or "" for name in _names_of(row)])
        _add(sums, group, (1, int(row["status"] >= 400), *[amount or 0 for amount in _amounts_of(row)]))
    return _to_rows(_HOUR_KEYS, sums)


def _sum_by_day(hours: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the sums of hourly sums, in one order for all writers."""
    sums: _Sums = {}
    for row in hours:
        day = row["hour"] // DAY * DAY
        _add(sums, (day, *[row[name] for name in _DAY_KEYS[1:]]), [row[name] for name in _SUMS])
    return _to_rows(_DAY_KEYS, sums)


def _add(sums: _Sums, group: tuple[Any, ...], amounts: Sequence[int]) -> None:
    found = sums.get(group)
    sums[group] = list(amounts) if found is None else list(map(add, found, amounts))


def _to_rows(keys: Sequence[str], sums: Mapping[tuple[Any, ...], list[int]]) -> list[dict[str, Any]]:
    return [dict(zip((*keys, *_SUMS), (*group, *sums[group]), strict=True)) for group in sorted(sums)]


def _upsert(connection: Connection, table: Table) -> Any:
    statement = _insert(connection, table)
    sums = {name: table.c[name] + statement.excluded[name] for name in _SUMS}
    return statement.on_conflict_do_update(index_elements=table.primary_key.columns.keys(), set_=sums)


def _insert(connection: Connection, table: Table) -> Any:
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)
