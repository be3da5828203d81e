"""Sums of usage by time, account and model, and the rows of calls for an export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Select, Table, and_, case, cast, func, literal, select, tuple_

from .account_tables import usage, usage_days, usage_hours
from .database import Database
from .records import UsageQuery

DAY: Final = 86_400
SUMS: Final = (
    "calls", "errors", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens",
    "cost_nano",
)  # fmt: skip
"""What is added up for each group."""
EXPORT_BATCH: Final = 500


class UsageReader:
    """Queries about usage. Every method raises `StorageUnavailableError`.

    Each query reads a day at most, so that other users of the database get their turns in between.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def sums(self, query: UsageQuery) -> list[dict[str, Any]]:
        """Return the sums of each bucket and group that has calls, in the order of time. `bucket` is the start.

        The time before the first call is skipped, as a query for each of its days could take hours.
        """
        step = max(DAY, query.width)
        skipped = max(self._oldest(query) - query.start, 0) // step * step
        return [
            row
            for start in range(query.start + skipped, query.end, step)
            for row in self._sums_between(query, start, min(start + step, query.end))
        ]

    def _oldest(self, query: UsageQuery) -> int:
        """Return the time of the oldest call that is stored, or the end of the query without one."""
        _, time = _choose_source(query)
        oldest: int | None = self._database.read(lambda connection: connection.execute(select(func.min(time))).scalar())
        return query.end if oldest is None else oldest

    def _sums_between(self, query: UsageQuery, start: int, end: int) -> list[dict[str, Any]]:
        source, time = _choose_source(query)
        groups = [source.c[name] for name in query.group_by]
        bucket = (time - (time - query.start) % query.width) if query.width < DAY else cast(literal(start), BigInteger)
        statement = (
            select(bucket.label("bucket"), *groups, *(_sum(source, name) for name in SUMS))
            .where(time >= start, time < end, *_conditions(source, query.filters))
            .group_by("bucket", *groups)
            .order_by("bucket", *groups)
        )
        return self._read(statement)

    def rows(self, start: int, end: int, filters: Mapping[str, Sequence[str]]) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Yield the rows of calls in the order of time, in batches. A row that is stored meanwhile may be left out."""
        last = (start, 0)
        while True:
            batch = self._rows_after(last, end, filters)
            if not batch:
                return
            yield batch
            last = (batch[-1]["at"], batch[-1]["number"])

    def _rows_after(
        self, last: tuple[int, int], end: int, filters: Mapping[str, Sequence[str]]
    ) -> list[dict[str, Any]]:
        statement = (
            select(usage)
            .where(
                usage.c.at >= last[0],  # SQLite uses the index for this condition, and not for the next one alone
                tuple_(usage.c.at, usage.c.number) > last,
                usage.c.at < end,
                *_conditions(usage, filters),
            )
            .order_by(usage.c.at, usage.c.number)
            .limit(EXPORT_BATCH)
        )
        return self._read(statement)

    def _read(self, statement: Select[Any]) -> list[dict[str, Any]]:
        """Return the rows of a query. SQLAlchemy's mappings take twice the time."""
        names = [column.name for column in statement.selected_columns]
        rows = self._database.read(lambda connection: connection.execute(statement).all())
        return [dict(zip(names, row, strict=True)) for row in rows]


def _choose_source(query: UsageQuery) -> tuple[Table, ColumnElement[int]]:
    """Return the smallest table that can answer the query, and its column of time."""
    if query.width % 3600 or "end_user" in query.columns:
        return usage, usage.c.at
    if query.width % DAY or "key_id" in query.columns:
        return usage_hours, usage_hours.c.hour
    return usage_days, usage_days.c.day


def _sum(source: Table, name: str) -> ColumnElement[int]:
    """Return the sum of a column. A row is one call, and an error if its status is one."""
    column: ColumnElement[Any]
    if source is not usage:
        column = source.c[name]
    elif name == "calls":
        column = literal(1)
    elif name == "errors":
        column = case((usage.c.status >= 400, 1), else_=0)
    else:
        column = source.c[name]
    return cast(func.coalesce(func.sum(column), 0), BigInteger).label(name)


def _conditions(source: Table, filters: Mapping[str, Sequence[str]]) -> list[ColumnElement[bool]]:
    return [and_(source.c[name].in_(values)) for name, values in filters.items()]
