"""Accounts as JSON, for the administration endpoints and the commands."""

from __future__ import annotations

from typing import Any

from .account import Account


def to_object(account: Account) -> dict[str, Any]:
    """Return an account in the shape of OpenAI's administration API, with the values that this server adds."""
    return {
        "id": account.id,
        **_kind_values(account),
        "name": account.name,
        "created_at": account.created_at,
        "enabled": account.is_enabled,
        "expires_at": account.expires_at,
        "policy": account.policy.to_object(),
        "metadata": dict(account.metadata),
        "tags": list(account.tags),
        "source": account.source,
    }


def to_deleted(account: Account) -> dict[str, Any]:
    """Return the confirmation of a key's deletion."""
    return {"object": "organization.project.api_key.deleted", "id": account.id, "deleted": True}


def _kind_values(account: Account) -> dict[str, Any]:
    """Return the name of the object's type, and what only this type has."""
    if account.kind == "organization":
        return {"object": "organization"}
    if account.kind == "project":
        return {"object": "organization.project", "status": "active" if account.is_enabled else "archived"}
    return {
        "object": "organization.project.api_key",
        "redacted_value": account.hint,
        "project_id": account.parent_id,
    }
