"""Tables of accounts and of the usage of their calls."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, String, Table, Text, text

from .tables import NUMBER, metadata

accounts: Final = Table(
    "accounts",
    metadata,
    Column("number", NUMBER, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("kind", String, nullable=False),
    Column("parent_id", String),
    Column("name", String, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("is_enabled", Boolean, nullable=False),
    Column("source", String, nullable=False),
    Column("hint", String),
    Column("body", Text, nullable=False),
    Index("accounts_by_parent", "kind", "parent_id", "number"),
    sqlite_autoincrement=True,
)
"""Organizations, projects and keys. `body` is the JSON of the policy, the metadata and the tags.

`hint` is the part of a key that is shown. `source` is `api` for objects that are managed by requests and commands, and
`file` for those of the accounts file.
"""

secrets: Final = Table(
    "secrets",
    metadata,
    Column("digest", String, primary_key=True),
    Column("account_id", String, ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
    Column("expires_at", BigInteger),
    Index("secrets_by_account", "account_id"),
)
"""SHA-256 digests of keys. A key that is being rotated has two."""

usage: Final = Table(
    "usage",
    metadata,
    Column("number", NUMBER, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("at", BigInteger, nullable=False),
    Column("organization_id", String),
    Column("project_id", String),
    Column("key_id", String),
    Column("end_user", String),
    Column("endpoint", String, nullable=False),
    Column("model", String, nullable=False),
    Column("served_by", String, nullable=False),
    Column("status", Integer, nullable=False),
    Column("error", String),
    Column("attempts", Integer, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("is_estimated", Boolean, nullable=False),
    Column("cost_nano", BigInteger),
    Column("price", String),
    Column("first_token_ms", Integer),
    Column("duration_ms", Integer, nullable=False),
    Column("request_id", String, nullable=False),
    Index("usage_by_time", "at"),
    Index("usage_by_project", "project_id", "at"),
    Index("usage_by_key", "key_id", "at"),
    Index(
        "usage_by_end_user",
        "end_user",
        "at",
        sqlite_where=text("end_user IS NOT NULL"),
        postgresql_where=text("end_user IS NOT NULL"),
    ),
)
"""One row for each call, without its content.

`cost_nano` is in nano-dollars, and null if the price is unknown. `price` is the JSON of the price that it was computed
with. `is_estimated` is true if the upstream did not tell the tokens.
"""


def _sums() -> list[Column[int]]:
    names = ("calls", "errors", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens")
    return [Column(name, BigInteger, nullable=False) for name in (*names, "reasoning_tokens", "cost_nano")]


usage_hours: Final = Table(
    "usage_hours",
    metadata,
    Column("hour", BigInteger, primary_key=True),
    Column("organization_id", String, primary_key=True),
    Column("project_id", String, primary_key=True),
    Column("key_id", String, primary_key=True),
    Column("endpoint", String, primary_key=True),
    Column("model", String, primary_key=True),
    *_sums(),
    Index("usage_hours_by_project", "project_id", "hour"),
    Index("usage_hours_by_key", "key_id", "hour"),
    sqlite_with_rowid=False,
)
"""Sums of the rows of each hour (UTC). They are written in the same transaction as the rows, and kept for longer.

An empty text stands for a call without an account.
"""

usage_days: Final = Table(
    "usage_days",
    metadata,
    Column("day", BigInteger, primary_key=True),
    Column("organization_id", String, primary_key=True),
    Column("project_id", String, primary_key=True),
    Column("endpoint", String, primary_key=True),
    Column("model", String, primary_key=True),
    *_sums(),
    sqlite_with_rowid=False,
)
"""Sums of the rows of each day (UTC), of all keys of a project together.

With 1,000,000 calls of 10,000 keys there are 45,000 of them and 940,000 of the hours, which a month's report would have
to read.
"""

budget_adjustments: Final = Table(
    "budget_adjustments",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("name", String, nullable=False),
    Column("period", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
)
"""What administrators added to budgets, in nano-dollars. It is negative for what they took off.

`owner`, `name` and `period` are those of a meter and of its window in the ledger, which is restored from these rows and
from those of the calls.
"""
