"""Organizations, projects and keys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from .policy import Policy, parse_policy

if TYPE_CHECKING:
    from openai_compat.storage.accounts import AccountRow

Kind = Literal["organization", "project", "key"]
ID_PREFIXES: Final[Mapping[Kind, str]] = {"organization": "org-", "project": "proj_", "key": "key_"}
"""Beginnings of ids, as in OpenAI's API."""
DEFAULT_ORGANIZATION: Final = "org-default"
DEFAULT_PROJECT: Final = "proj_default"


@dataclass(frozen=True, slots=True, eq=False)
class Account:
    """An organization, a project or a key, as it was read. Two of them are never equal.

    Attributes:
        expires_at: Unix time in seconds from which it is not valid, or None.
        source: `api`, `file` for what the accounts file describes, or `token` for the subject of a token.
        hint: The part of a key that is shown.
        metadata: Values that only its owner understands.
        tags: Words by which usage can be found.
    """

    id: str
    kind: Kind
    name: str
    created_at: int
    parent_id: str | None = None
    expires_at: int | None = None
    is_enabled: bool = True
    source: str = "api"
    hint: str | None = None
    policy: Policy = field(default_factory=Policy)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()

    def is_valid(self, now: float) -> bool:
        """Return True if it is enabled and has not expired."""
        return self.is_enabled and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class Caller:
    """A key with its project and its organization. `expires_at` is the expiry of the secret, if it was replaced."""

    key: Account
    project: Account
    organization: Account
    expires_at: int | None = None

    @property
    def accounts(self) -> tuple[Account, Account, Account]:
        """The three, the widest first, which is the order in which limits are checked."""
        return (self.organization, self.project, self.key)

    def is_valid(self, now: float) -> bool:
        """Return True if all three are valid."""
        is_current = self.expires_at is None or now < self.expires_at
        return is_current and self.organization.is_valid(now) and self.project.is_valid(now) and self.key.is_valid(now)


def to_row(account: Account) -> AccountRow:
    """Return the account as it is stored."""
    from openai_compat.storage.accounts import AccountRow

    body = {
        "policy": account.policy.to_object(),
        "metadata": dict(account.metadata),
        "tags": list(account.tags),
    }
    return AccountRow(
        id=account.id,
        kind=account.kind,
        parent_id=account.parent_id,
        name=account.name,
        created_at=account.created_at,
        expires_at=account.expires_at,
        is_enabled=account.is_enabled,
        source=account.source,
        hint=account.hint,
        body=json.dumps(body),
    )


def from_row(row: AccountRow) -> Account:
    """Return the stored account."""
    body: Mapping[str, Any] = json.loads(row.body)
    kind: Any = row.kind
    return Account(
        id=row.id,
        kind=kind,
        name=row.name,
        created_at=row.created_at,
        parent_id=row.parent_id,
        expires_at=row.expires_at,
        is_enabled=row.is_enabled,
        source=row.source,
        hint=row.hint,
        policy=parse_policy(body["policy"]),
        metadata=body["metadata"],
        tags=tuple(body["tags"]),
    )


def to_caller(rows: Sequence[AccountRow], expires_at: int | None) -> Caller | None:
    """Return the caller of a key's row and those of its parents, or None if one of them is missing."""
    found = {row.kind: from_row(row) for row in rows}
    if found.keys() != {"organization", "project", "key"}:
        return None
    return Caller(found["key"], found["project"], found["organization"], expires_at)
