"""Tables of objects with their items, events and tags, and of leases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "objects",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("model", sa.String),
        sa.Column("status", sa.String),
        sa.Column("previous_id", sa.String),
        sa.Column("is_background", sa.Boolean, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("objects_by_owner", "objects", ["owner", "kind", "number"])
    op.create_index("objects_by_use", "objects", ["used_at"])
    op.create_table(
        "items",
        _object_number(),
        sa.Column("section", sa.String, primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("item_id", sa.String, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("items_by_id", "items", ["item_id"])
    op.create_table(
        "events",
        _object_number(),
        sa.Column("sequence_number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "tags",
        _object_number(),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("value", sa.String, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("holder", sa.String, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
    )


def _object_number() -> sa.Column[int]:
    return sa.Column("object_number", _NUMBER, sa.ForeignKey("objects.number", ondelete="CASCADE"), primary_key=True)
