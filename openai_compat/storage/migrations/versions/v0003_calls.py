"""Tables of the log of calls."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TOKENS = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
_SUMS = ("calls", "errors", "input_tokens", "output_tokens", "cost_nano", "first_tokens", "first_token_ms")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "calls",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.String, nullable=False) for name in ("request_id", "operation", "model", "target")),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("error", sa.String),
        sa.Column("is_failed", sa.Boolean, nullable=False),
        *(sa.Column(name, sa.String) for name in ("key_id", "key_name", "project_id")),
        sa.Column("is_streamed", sa.Boolean, nullable=False),
        sa.Column("first_token_ms", sa.Integer),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        *(sa.Column(name, sa.BigInteger) for name in (*_TOKENS, "cost_nano")),
        sa.Column("adapted", sa.String, nullable=False),
        sa.Column("attempts", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    for index, column in (("key", "key_id"), ("model", "model"), ("failure", "is_failed")):
        op.create_index(f"calls_by_{index}", "calls", [column, "number"])
    op.create_table(
        "call_bodies",
        sa.Column("call_id", sa.String, sa.ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
    )
    op.create_table(
        "call_sums",
        sa.Column("width", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("start", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("model", sa.String, primary_key=True),
        sa.Column("target", sa.String, primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in (*_SUMS, "duration_ms")),
        sqlite_with_rowid=False,
    )
