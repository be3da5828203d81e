"""Insertion of a new object with its items, in the driver's own SQL.

Every call that is stored executes it. With SQLAlchemy's expressions and transactions it took twice the CPU time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, Final

from sqlalchemy import PoolProxiedConnection

from .records import NewObject
from .tables import objects

_COLUMNS: Final = tuple(column.name for column in objects.c if column is not objects.c.number)
_INTO_OBJECTS: Final = f"INSERT INTO objects ({', '.join(_COLUMNS)}) VALUES "  # noqa: S608 - names of columns
_INTO_ITEMS: Final = "INSERT INTO items (object_number, section, position, item_id, body) "
_INTO_TAGS: Final = "INSERT INTO tags (object_number, key, value) "

_SQLITE_OBJECT: Final = f"{_INTO_OBJECTS} ({', '.join('?' * len(_COLUMNS))})"
_SQLITE_ITEM: Final = "(?, ?, ?, ?, ?)"
_SQLITE_TAG: Final = "(?, ?, ?)"
_ITEM_TYPES: Final = ("text", "int", "text", "text")
_TAG_TYPES: Final = ("text", "text")
MOST_VALUES: Final = 16
"""Rows up to which each value is a parameter of its own. psycopg encodes arrays in Python, which takes 60 µs."""


@dataclass(frozen=True, slots=True)
class NewRows:
    """Rows of a new object, without the number that the database gives it."""

    object: tuple[Any, ...]
    items: Sequence[tuple[str, int, str, str]]
    tags: Sequence[tuple[str, str]]
    size: int


def to_rows(owner: str, kind: str, used_at: int, new: NewObject) -> NewRows:
    """Return the rows of an object, in the order of the tables' columns."""
    rows = list(_to_items(new))
    size = len(new.body) + sum(len(body) for *_, body in rows)
    object = (
        new.id, kind, owner, new.created_at, used_at, size,
        new.model, new.status, new.previous_id, new.is_background, new.body,
    )  # fmt: skip
    return NewRows(object, rows, list(new.tags.items()), size)


def insert_into_sqlite(connection: sqlite3.Connection, rows: NewRows) -> None:
    """Insert an object in a transaction that has begun."""
    number = connection.execute(_SQLITE_OBJECT, rows.object).lastrowid
    _insert_rows(connection, _INTO_ITEMS, _SQLITE_ITEM, [(number, *row) for row in rows.items])
    _insert_rows(connection, _INTO_TAGS, _SQLITE_TAG, [(number, *row) for row in rows.tags])


def _insert_rows(connection: sqlite3.Connection, into: str, row: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert several rows by one statement. For each statement, the driver hands the GIL to another thread and back."""
    for start in range(0, len(rows), MOST_VALUES):
        part = rows[start : start + MOST_VALUES]
        connection.execute(f"{into} VALUES {', '.join([row] * len(part))}", tuple(chain.from_iterable(part)))


def insert_into_postgres(connection: PoolProxiedConnection, rows: NewRows) -> None:
    """Insert an object and commit, on a connection in autocommit mode.

    It is one statement, which needs one round trip and no transaction around it.
    """
    items, tags = _to_parameters(rows.items), _to_parameters(rows.tags)
    with closing(connection.cursor()) as cursor:
        cursor.execute(_to_postgres(len(rows.items), len(rows.tags)), (*rows.object, *items, *tags))


@lru_cache(maxsize=256)
def _to_postgres(items: int, tags: int) -> str:
    """Return the statement for an object with these numbers of items and tags."""
    parts = [f"WITH new AS ({_INTO_OBJECTS} ({', '.join(['%s'] * len(_COLUMNS))}) RETURNING number)"]
    if items:
        parts.append(f"own_items AS ({_INTO_ITEMS} {_to_select(items, _ITEM_TYPES)})")
    if tags:
        parts.append(f"own_tags AS ({_INTO_TAGS} {_to_select(tags, _TAG_TYPES)})")
    return f"{', '.join(parts)} SELECT number FROM new"  # noqa: S608 - as above


def _to_select(count: int, types: Sequence[str]) -> str:
    return f"SELECT number, row.* FROM new, {_to_source(count, types)}"  # noqa: S608 - as above


def _to_source(count: int, types: Sequence[str]) -> str:
    """Return the expression of `count` rows, whose parameters `_to_parameters` has."""
    if count > MOST_VALUES:
        return f"unnest({', '.join(f'%s::{type}[]' for type in types)}) AS row"
    row = f"({', '.join(f'%s::{type}' for type in types)})"
    return f"(VALUES {', '.join([row] * count)}) AS row"


def _to_parameters(rows: Sequence[tuple[Any, ...]]) -> Iterable[Any]:
    """Return the values of all rows, or an array for each column if there are too many."""
    return map(list, zip(*rows, strict=True)) if len(rows) > MOST_VALUES else chain.from_iterable(rows)


def _to_items(new: NewObject) -> Iterator[tuple[str, int, str, str]]:
    for section, entries in new.sections.items():
        for position, entry in enumerate(entries):
            yield section, position, entry.id, entry.body
