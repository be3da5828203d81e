"""Insertion of a new object with its items, in the driver's own SQL.

Every call that is stored executes it. With SQLAlchemy's expressions and transactions it took twice the CPU time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from .records import NewObject
from .tables import objects

_COLUMNS: Final = tuple(column.name for column in objects.c if column is not objects.c.number)
_INTO_OBJECTS: Final = f"INSERT INTO objects ({', '.join(_COLUMNS)}) VALUES "  # noqa: S608 - names of columns
_INTO_ITEMS: Final = "INSERT INTO items (object_number, section, position, item_id, body) "
_INTO_TAGS: Final = "INSERT INTO tags (object_number, key, value) "

_SQLITE_OBJECT: Final = f"{_INTO_OBJECTS} ({', '.join('?' * len(_COLUMNS))})"
_SQLITE_ITEM: Final = f"{_INTO_ITEMS} VALUES (?, ?, ?, ?, ?)"
_SQLITE_TAG: Final = f"{_INTO_TAGS} VALUES (?, ?, ?)"
_POSTGRES: Final = f"""
WITH new AS ({_INTO_OBJECTS} ({", ".join(["%s"] * len(_COLUMNS))}) RETURNING number),
own_items AS (
    {_INTO_ITEMS} SELECT number, row.* FROM new, unnest(%s::text[], %s::int[], %s::text[], %s::text[]) AS row
),
own_tags AS ({_INTO_TAGS} SELECT number, row.* FROM new, unnest(%s::text[], %s::text[]) AS row)
SELECT number FROM new
"""  # noqa: S608 - as above
"""One statement, which needs one round trip and no transaction around it."""


@dataclass(frozen=True, slots=True)
class NewRows:
    """Rows of a new object, without the number that the database gives it."""

    object: tuple[Any, ...]
    items: Sequence[tuple[str, int, str, str]]
    tags: Sequence[tuple[str, str]]


def to_rows(owner: str, kind: str, used_at: int, new: NewObject) -> NewRows:
    """Return the rows of an object, in the order of the tables' columns."""
    rows = list(_to_items(new))
    size = len(new.body) + sum(len(body) for *_, body in rows)
    object = (
        new.id, kind, owner, new.created_at, used_at, size,
        new.model, new.status, new.previous_id, new.is_background, new.body,
    )  # fmt: skip
    return NewRows(object, rows, list(new.tags.items()))


def insert_into_sqlite(connection: sqlite3.Connection, rows: NewRows) -> None:
    """Insert an object in a transaction that has begun."""
    number = connection.execute(_SQLITE_OBJECT, rows.object).lastrowid
    if rows.items:
        connection.executemany(_SQLITE_ITEM, [(number, *row) for row in rows.items])
    if rows.tags:
        connection.executemany(_SQLITE_TAG, [(number, *row) for row in rows.tags])


def insert_into_postgres(connection: Connection, rows: NewRows) -> None:
    """Insert an object and commit, on a connection in autocommit mode."""
    arrays = (*_to_columns(rows.items, 4), *_to_columns(rows.tags, 2))
    connection.exec_driver_sql(_POSTGRES, (*rows.object, *arrays)).close()


def _to_items(new: NewObject) -> Iterator[tuple[str, int, str, str]]:
    for section, entries in new.sections.items():
        for position, entry in enumerate(entries):
            yield section, position, entry.id, entry.body


def _to_columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    return [[row[index] for row in rows] for index in range(count)]
