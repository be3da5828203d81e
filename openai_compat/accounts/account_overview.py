"""All accounts with the state of their limits and budgets, for the admin page."""

from __future__ import annotations

from typing import Any

from .account import Account
from .account_objects import to_object
from .manager import AccountManager
from .meters import Meters

MAX_PROJECTS = 1000


def describe_accounts(manager: AccountManager, meters: Meters, after: str | None, limit: int) -> dict[str, Any]:
    """Return the organization, the projects, and the keys after the one with the id `after`.

    Raises:
        StorageUnavailableError, StoreError, UnknownCursorError
    """
    projects, _ = manager.page("project", None, None, MAX_PROJECTS)
    keys, has_more = manager.page("key", None, after, limit)
    return {
        "organization": _describe(manager.organization(), meters),
        "projects": [_describe(project, meters) for project in projects],
        "keys": [_describe(key, meters) for key in keys],
        "has_more": has_more,
    }


def _describe(account: Account, meters: Meters) -> dict[str, Any]:
    return {**to_object(account), "meters": [state.to_object() for state in meters.states(account)]}
