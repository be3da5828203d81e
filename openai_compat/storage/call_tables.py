"""Tables of the log of calls, which the admin page shows."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, String, Table, Text

from .tables import NUMBER, metadata

calls: Final = Table(
    "calls",
    metadata,
    Column("number", NUMBER, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("request_id", String, nullable=False),
    Column("operation", String, nullable=False),
    Column("model", String, nullable=False),
    Column("target", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("status", Integer, nullable=False),
    Column("error", String),
    Column("is_failed", Boolean, nullable=False),
    Column("key_id", String),
    Column("key_name", String),
    Column("project_id", String),
    Column("is_streamed", Boolean, nullable=False),
    Column("first_token_ms", Integer),
    Column("duration_ms", Integer, nullable=False),
    Column("input_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("cache_write_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("cost_nano", BigInteger),
    Column("adapted", String, nullable=False),
    Column("attempts", Text, nullable=False),
    Index("calls_by_key", "key_id", "number"),
    Index("calls_by_model", "model", "number"),
    Index("calls_by_failure", "is_failed", "number"),
    sqlite_autoincrement=True,
)
"""The latest calls. `at_ms` is the start in milliseconds, and `attempts` JSON with times relative to it.

`target` is the model config that answered. Tokens are null if the upstream did not tell them, and so is the cost, or
if the price is unknown.
"""

call_bodies: Final = Table(
    "call_bodies",
    metadata,
    Column("call_id", String, ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True),
    Column("request", Text, nullable=False),
    Column("answer", Text, nullable=False),
)
"""Beginnings of the bodies of calls, with secrets masked. They are deleted with their call."""

call_sums: Final = Table(
    "call_sums",
    metadata,
    Column("width", Integer, primary_key=True, autoincrement=False),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("model", String, primary_key=True),
    Column("target", String, primary_key=True),
    *(
        Column(name, BigInteger, nullable=False)
        for name in (
            "calls", "errors", "input_tokens", "output_tokens", "cost_nano", "first_tokens", "first_token_ms",
            "duration_ms",
        )
    ),
    sqlite_with_rowid=False,
)  # fmt: skip
"""Sums of the calls of each minute and of each hour, by model and target. `width` is 60 or 3600 seconds.

`first_tokens` is the number of calls whose first tokens took `first_token_ms` together.
"""
