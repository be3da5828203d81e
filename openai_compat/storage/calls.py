"""Store of the log of calls and of their sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Connection, and_, cast, delete, func, insert, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from .call_tables import call_bodies, call_sums, calls
from .database import Database
from .records import CallFilter

WIDTHS: Final = (60, 3600)
"""Seconds of the sums that are kept."""
KEPT_SECONDS: Final = {60: 2 * 86_400, 3600: 40 * 86_400}
"""Width of a sum -> time for which it is kept."""
DELETED: Final = 1000
"""Rows deleted at most with an insertion, which other writers wait for."""
OTHER_MODELS: Final = "(other models)"
MAX_MODELS: Final = 200
"""Models with sums of their own in an hour, because callers may choose any name where an upstream serves all."""
SUMS: Final = (
    "calls", "errors", "input_tokens", "output_tokens", "cost_nano", "first_tokens", "first_token_ms", "duration_ms",
)  # fmt: skip
_GROUP: Final = ("width", "start", "model", "target")
_COLUMNS: Final = tuple(column.name for column in calls.c if column is not calls.c.number)
_values_of: Final = itemgetter(*_COLUMNS)
_LISTED: Final = [column for column in calls.c if column.name != "attempts"]


class CallStore:
    """The latest `size` calls, and the sums of all. Every method raises `StorageUnavailableError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        rows: Sequence[Mapping[str, Any]],
        bodies: Sequence[Mapping[str, Any]],
        size: int,
        *,
        is_repeated: bool = False,
    ) -> None:
        """Store calls and their bodies, add them to the sums, and delete the oldest calls beyond `size`.

        It is one transaction. With `is_repeated`, which costs as much as the rest, calls that are stored already are
        left out. An earlier transaction with them may have been committed although it failed.
        """

        def work(connection: Connection) -> None:
            known = _known_ids(connection, rows) if is_repeated else frozenset[str]()
            fresh = [row for row in rows if row["id"] not in known]
            if not fresh:
                return
            _insert_calls(connection, fresh)
            connection.execute(_upsert(connection), _merge_new_models(connection, _to_sums(fresh)))
            own = [body for body in bodies if body["call_id"] not in known]
            if own:
                connection.execute(insert(call_bodies), own)
            _delete_oldest(connection, size)

        self._database.write(work)

    def page(self, filter: CallFilter, *, before: int | None, after: int | None, limit: int) -> list[dict[str, Any]]:
        """Return calls without their attempts, the newest first, from before or after a number."""
        conditions = _conditions(filter)
        if before is not None:
            conditions.append(calls.c.number < before)
        if after is not None:
            conditions.append(calls.c.number > after)
        statement = select(*_LISTED).where(*conditions).order_by(calls.c.number.desc()).limit(limit)
        rows = self._database.read(lambda connection: connection.execute(statement).mappings().all())
        return [dict(row) for row in rows]

    def get(self, id: str) -> tuple[dict[str, Any], dict[str, Any] | None] | None:
        """Return a call and its bodies, if they were kept, or None if there is no such call."""

        def work(connection: Connection) -> tuple[dict[str, Any], dict[str, Any] | None] | None:
            row = connection.execute(select(calls).where(calls.c.id == id)).mappings().first()
            body = connection.execute(select(call_bodies).where(call_bodies.c.call_id == id)).mappings().first()
            return None if row is None else (dict(row), None if body is None else dict(body))

        return self._database.read(work)

    def sums(self, width: int, start: int, end: int, bucket: int) -> list[dict[str, Any]]:
        """Return the sums by bucket of `bucket` seconds, from `start` until before `end`, in the order of time."""
        time = (call_sums.c.start - call_sums.c.start % bucket).label("bucket")
        return self._sums([time], width, start, end)

    def totals(self, width: int, start: int, end: int) -> list[dict[str, Any]]:
        """Return the sums by model and target, from `start` until before `end`."""
        return self._sums([call_sums.c.model, call_sums.c.target], width, start, end)

    def _sums(self, groups: list[ColumnElement[Any]], width: int, start: int, end: int) -> list[dict[str, Any]]:
        statement = (
            select(*groups, *(cast(func.sum(call_sums.c[name]), BigInteger).label(name) for name in SUMS))
            .where(call_sums.c.width == width, call_sums.c.start >= start, call_sums.c.start < end)
            .group_by(*groups)
            .order_by(*groups)
        )
        rows = self._database.read(lambda connection: connection.execute(statement).mappings().all())
        return [dict(row) for row in rows]

    def delete_old_sums(self, now: int) -> None:
        """Delete the sums that are older than `KEPT_SECONDS`."""
        too_old = or_(
            *(and_(call_sums.c.width == width, call_sums.c.start < now - age) for width, age in KEPT_SECONDS.items())
        )
        self._database.write(lambda connection: connection.execute(delete(call_sums).where(too_old)))


def _conditions(filter: CallFilter) -> list[ColumnElement[bool]]:
    found = []
    if filter.key_id is not None:
        found.append(calls.c.key_id == filter.key_id)
    if filter.model is not None:
        found.append(calls.c.model == filter.model)
    if filter.is_failed is not None:
        found.append(calls.c.is_failed == filter.is_failed)
    return found


def _insert_calls(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows in the driver's own SQL, which takes half of the time of SQLAlchemy's."""
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    marks = ", ".join([mark] * len(_COLUMNS))
    statement = f"INSERT INTO calls ({', '.join(_COLUMNS)}) VALUES ({marks})"  # noqa: S608 - names of columns
    connection.exec_driver_sql(statement, [_values_of(row) for row in rows])


def _known_ids(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Return the ids of those rows that are stored."""
    known = select(calls.c.id).where(calls.c.id.in_([row["id"] for row in rows]))
    return frozenset(connection.execute(known).scalars())


def _delete_oldest(connection: Connection, size: int) -> None:
    """Delete calls beyond the newest `size`. Numbers may have gaps, so that a few less may be left."""
    newest = select(func.max(calls.c.number)).scalar_subquery()
    oldest = select(calls.c.number).where(calls.c.number <= newest - size).order_by(calls.c.number).limit(DELETED)
    connection.execute(delete(calls).where(calls.c.number.in_(oldest.scalar_subquery())))


def _to_sums(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[Any, ...], list[int]]:
    """Return the sums of calls by the columns of `_GROUP`."""
    sums: dict[tuple[Any, ...], list[int]] = {}
    for row in rows:
        first_token = row["first_token_ms"]
        amounts = (
            1, int(row["is_failed"]), row["input_tokens"] or 0, row["output_tokens"] or 0, row["cost_nano"] or 0,
            int(first_token is not None), first_token or 0, row["duration_ms"],
        )  # fmt: skip
        at = row["at_ms"] // 1000
        for width in WIDTHS:
            _add(sums, (width, at - at % width, row["model"], row["target"]), amounts)
    return sums


def _merge_new_models(connection: Connection, sums: Mapping[tuple[Any, ...], list[int]]) -> list[dict[str, Any]]:
    """Return the rows of sums, in one order for all writers. Models beyond `MAX_MODELS` of an hour are one."""
    merged: dict[tuple[Any, ...], list[int]] = {}
    names = {hour: _names_of(connection, hour) for hour in {_hour_of(start) for _, start, _, _ in sums}}
    for (width, start, model, target), amounts in sums.items():
        known = names[_hour_of(start)]
        if len(known) < MAX_MODELS:
            known.add((model, target))
        name = (model, target) if (model, target) in known else (OTHER_MODELS, OTHER_MODELS)
        _add(merged, (width, start, *name), amounts)
    return [dict(zip((*_GROUP, *SUMS), (*group, *merged[group]), strict=True)) for group in sorted(merged)]


def _hour_of(start: int) -> int:
    return start - start % 3600


def _names_of(connection: Connection, hour: int) -> set[tuple[str, str]]:
    """Return the models and targets that have sums in an hour."""
    names = select(call_sums.c.model, call_sums.c.target).where(call_sums.c.width == 3600, call_sums.c.start == hour)
    return {(row.model, row.target) for row in connection.execute(names)}


def _add(sums: dict[tuple[Any, ...], list[int]], group: tuple[Any, ...], amounts: Sequence[int]) -> None:
    present = sums.get(group)
    sums[group] = list(amounts) if present is None else [sum(pair) for pair in zip(present, amounts, strict=True)]


def _upsert(connection: Connection) -> Any:
    statement = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(call_sums)
    sums = {name: call_sums.c[name] + statement.excluded[name] for name in SUMS}
    return statement.on_conflict_do_update(index_elements=list(_GROUP), set_=sums)
