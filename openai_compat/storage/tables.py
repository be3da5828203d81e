"""Tables of the database, and the version of their schema.

An object is a response, a conversation or a chat completion. Its items, events and metadata are deleted with it.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata: Final = MetaData()

# SQLite numbers rows of the type INTEGER only.
NUMBER: Final = BigInteger().with_variant(Integer, "sqlite")


def _object_number() -> Column[Any]:
    return Column("object_number", NUMBER, ForeignKey("objects.number", ondelete="CASCADE"), primary_key=True)


objects: Final = Table(
    "objects",
    metadata,
    Column("number", NUMBER, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("kind", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("model", String),
    Column("status", String),
    Column("previous_id", String),
    Column("is_background", Boolean, nullable=False, default=False),
    Column("body", Text, nullable=False),
    Index("objects_by_owner", "owner", "kind", "number"),
    Index("objects_by_use", "used_at"),
    sqlite_autoincrement=True,
)
"""`used_at` is the time of the last change, from which the object's expiry counts. `body` is JSON."""

items: Final = Table(
    "items",
    metadata,
    _object_number(),
    Column("section", String, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("item_id", String, nullable=False),
    Column("body", Text, nullable=False),
    Index("items_by_id", "item_id"),
)

events: Final = Table(
    "events",
    metadata,
    _object_number(),
    Column("sequence_number", Integer, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
)

tags: Final = Table(
    "tags",
    metadata,
    _object_number(),
    Column("key", String, primary_key=True),
    Column("value", String, nullable=False),
)
"""Pairs of an object's metadata by which lists are filtered, each encoded as JSON."""

leases: Final = Table(
    "leases",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("expires_at", Float, nullable=False),
)
"""Locks that several processes share. A lease that its holder does not renew expires."""


def body_of(table: Table) -> ColumnElement[str]:
    """Return the expression that reads the JSON of a row.

    SQLite reads a large value while the row is fetched, with Python's interpreter lock held, but evaluates an
    expression before that, without the lock. Other greenlets are stopped for half as long.
    """
    return table.c.body.concat("").label("body")
