"""Tables of accounts and of the usage of their calls."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TOKENS = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "accounts",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("parent_id", sa.String),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("is_enabled", sa.Boolean, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("hint", sa.String),
        sa.Column("body", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("accounts_by_parent", "accounts", ["kind", "parent_id", "number"])
    op.create_table(
        "secrets",
        sa.Column("digest", sa.String, primary_key=True),
        sa.Column("account_id", sa.String, sa.ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
        sa.Column("expires_at", sa.BigInteger),
    )
    op.create_index("secrets_by_account", "secrets", ["account_id"])
    _create_usage()
    _create_usage_sums()


def _create_usage() -> None:
    op.create_table(
        "usage",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.String) for name in ("organization_id", "project_id", "key_id", "end_user")),
        *(sa.Column(name, sa.String, nullable=False) for name in ("endpoint", "model", "served_by")),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("error", sa.String),
        sa.Column("attempts", sa.Integer, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _TOKENS),
        sa.Column("is_estimated", sa.Boolean, nullable=False),
        sa.Column("cost_nano", sa.BigInteger),
        sa.Column("price", sa.String),
        sa.Column("first_token_ms", sa.Integer),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("request_id", sa.String, nullable=False),
    )
    op.create_index("usage_by_time", "usage", ["at"])
    op.create_index("usage_by_project", "usage", ["project_id", "at"])
    op.create_index("usage_by_key", "usage", ["key_id", "at"])
    known = sa.text("end_user IS NOT NULL")
    op.create_index("usage_by_end_user", "usage", ["end_user", "at"], sqlite_where=known, postgresql_where=known)


def _create_usage_sums() -> None:
    sums = ("calls", "errors", *_TOKENS, "cost_nano")
    for table, time, groups in (
        ("usage_hours", "hour", ("organization_id", "project_id", "key_id", "endpoint", "model")),
        ("usage_days", "day", ("organization_id", "project_id", "endpoint", "model")),
    ):
        op.create_table(
            table,
            sa.Column(time, sa.BigInteger, primary_key=True, autoincrement=False),
            *(sa.Column(name, sa.String, primary_key=True) for name in groups),
            *(sa.Column(name, sa.BigInteger, nullable=False) for name in sums),
            sqlite_with_rowid=False,
        )
    op.create_index("usage_hours_by_project", "usage_hours", ["project_id", "hour"])
    op.create_index("usage_hours_by_key", "usage_hours", ["key_id", "hour"])
