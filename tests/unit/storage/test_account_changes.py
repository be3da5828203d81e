"""Changes of one account at the same time, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, Final, cast

import pytest

from openai_compat.accounts.manager import AccountManager, NewAccount
from openai_compat.accounts.policy import parse_policy
from openai_compat.core.errors import InvalidRequestError, ObjectNotFoundError
from openai_compat.state.sqlite_file import MEMORY
from openai_compat.state.sqlite_ledger import SQLiteLedger
from openai_compat.storage import Storage
from openai_compat.storage.location import Location
from openai_compat.storage.opened import Stores

from .conftest import open_stores

POLICY: Final = parse_policy({"models": ["gpt-*"]})
CHANGES: Final[tuple[dict[str, Any], ...]] = (
    {"is_enabled": False},
    {"metadata": {"team": "a"}},
    {"tags": ("x",)},
    {"policy": POLICY},
)


@pytest.fixture
def managers(location: Location) -> Iterator[list[AccountManager]]:
    """Yield a manager of the same accounts for each of the changes, as several workers have them."""
    stores = [open_stores(location) for _ in CHANGES]
    yield list(map(_manager_of, stores))
    for one in stores:
        one.close()


def _manager_of(stores: Stores) -> AccountManager:
    return AccountManager(cast(Storage, stores), SQLiteLedger(MEMORY, "test"))


def test_changes_at_the_same_time_are_all_kept(managers: list[AccountManager]) -> None:
    with ThreadPoolExecutor(len(CHANGES)) as pool:
        for _ in range(10):
            key, _ = managers[0].create_key(NewAccount("test"))
            barrier = Barrier(len(CHANGES))

            def change(manager: AccountManager, changes: Any, id: str = key.id, barrier: Barrier = barrier) -> None:
                barrier.wait(10)
                manager.change("key", id, changes)

            list(pool.map(change, managers, CHANGES))
            found = managers[0].get("key", key.id)
            assert not found.is_enabled
            assert (found.metadata, found.tags, found.policy) == ({"team": "a"}, ("x",), POLICY)


def test_a_change_that_is_refused_leaves_the_account_as_it_is(managers: list[AccountManager]) -> None:
    manager = managers[0]
    project = manager.create("project", NewAccount("search"))
    with pytest.raises(InvalidRequestError):
        manager.change("project", project.id, {"name": "", "is_enabled": False})
    found = manager.get("project", project.id)
    assert (found.name, found.is_enabled) == ("search", True)
    for kind, id in (("key", project.id), ("project", "proj_missing"), ("project", "a\x00b")):
        with pytest.raises(ObjectNotFoundError):
            manager.change(cast(Any, kind), id, {"is_enabled": False})
