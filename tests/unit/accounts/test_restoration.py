"""Restoration of a ledger that lost its contents, and what callers notice meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openai_compat.accounts.account import Account, Caller
from openai_compat.accounts.charges import rules_for, rules_of
from openai_compat.accounts.directory import KeyDirectory
from openai_compat.accounts.manager import AccountManager, NewAccount
from openai_compat.accounts.policy import parse_policy
from openai_compat.accounts.restoration import LedgerRestorer
from openai_compat.core.errors import AccountsUnavailableError, StorageUnavailableError
from openai_compat.state.base import StoreError
from openai_compat.state.ledger import Ledger, Level
from openai_compat.state.sqlite_file import MEMORY
from openai_compat.state.sqlite_ledger import SQLiteLedger
from openai_compat.storage import Storage, open_storage

HOUR = 3600
NOW = 1_800_000_000 + 30 * 60
"""Half past an hour, on the second half of a day."""
DAY = 86400


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = open_storage(None, str(tmp_path), DAY, 10**6)
    yield opened
    opened.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SQLiteLedger]:
    opened = SQLiteLedger(str(tmp_path / "ledger.db"), "worker")
    yield opened
    opened.close()


def _create_key(storage: Storage, **policy: Any) -> tuple[Account, str]:
    """Create a key of which the ledger does not know."""
    return AccountManager(storage, SQLiteLedger(MEMORY, "other")).create_key(
        NewAccount("test", policy=parse_policy(policy))
    )


def _spend(storage: Storage, key: Account, at: int, nano: int, end_user: str | None = None) -> None:
    row = dict.fromkeys(
        ("cached_tokens", "cache_write_tokens", "reasoning_tokens", "input_tokens", "output_tokens", "duration_ms"), 0
    )
    texts = dict.fromkeys(("endpoint", "model", "served_by", "request_id"), "test")
    optional = dict.fromkeys(("error", "price", "first_token_ms"))
    ids = {"organization_id": "org-default", "project_id": key.parent_id, "key_id": key.id, "end_user": end_user}
    values = {"id": f"{key.id}-{at}-{nano}", "at": at, "status": 200, "attempts": 1, "is_estimated": False}
    storage.usage.add([{**row, **texts, **optional, **ids, **values, "cost_nano": nano}])


def _levels(ledger: Ledger, account: Account) -> dict[str, Level]:
    meters = {rule.name: rule.meter(NOW) for rule in rules_of(account)}
    return dict(zip(meters, ledger.levels(list(meters.values())), strict=True))


def test_budgets_of_every_window_are_restored_from_the_usage(storage: Storage, ledger: SQLiteLedger) -> None:
    windows: list[dict[str, Any]] = [{"amount": 5, "every": every} for every in (None, "day", "hour", "2d", "90m")]
    key, _ = _create_key(storage, budgets=windows, limits={"requests_per_minute": 5})
    for age, nano in ((0, 1), (20 * 60, 10), (2 * HOUR, 100), (DAY, 1000), (3 * DAY, 10_000), (40 * DAY, 100_000)):
        _spend(storage, key, NOW - age, nano)
    assert LedgerRestorer(storage, ledger, lambda: NOW).restore() == NOW
    levels = _levels(ledger, key)
    assert levels["budget:total:UTC"] == Level(111_111)
    assert levels["budget:day:UTC"] == Level(111)
    assert levels["budget:hour:UTC"] == Level(11)
    start = NOW // (2 * DAY) * 2 * DAY
    ages = {0: 1, 20 * 60: 10, 2 * HOUR: 100, DAY: 1000, 3 * DAY: 10_000}
    assert levels["budget:2d:UTC"] == Level(
        sum(nano for age, nano in ages.items() if NOW - age >= start),
        sum(nano for age, nano in ages.items() if start - 2 * DAY <= NOW - age < start),
    )
    start = NOW // 5400 * 5400
    assert levels["budget:90m:UTC"] == Level(
        sum(nano for age, nano in ages.items() if NOW - age >= start),
        sum(nano for age, nano in ages.items() if start - 5400 <= NOW - age < start),
    )


def test_what_was_spent_is_known_after_the_rows_were_deleted(storage: Storage, ledger: SQLiteLedger) -> None:
    key, _ = _create_key(storage, budgets=[{"amount": 5}])
    _spend(storage, key, NOW - 40 * DAY, 700)
    assert storage.usage.delete_before(NOW - DAY) == 1
    LedgerRestorer(storage, ledger, lambda: NOW).restore()
    assert _levels(ledger, key) == {"budget:total:UTC": Level(700)}


def test_budgets_of_end_users_are_restored(storage: Storage, ledger: SQLiteLedger) -> None:
    key, _ = _create_key(storage, end_users={"budgets": [{"amount": 1, "every": "day"}]})
    _spend(storage, key, NOW, 30, "Ada")
    _spend(storage, key, NOW, 4, "Bob")
    _spend(storage, key, NOW, 5)
    LedgerRestorer(storage, ledger, lambda: NOW).restore()
    caller = Caller(key, key, key)
    for name, spent in (("Ada", 30), ("Bob", 4), ("Cy", 0)):
        meters = [rule.meter(NOW) for rule in rules_for(caller, name)]
        assert {level.current for level in ledger.levels(meters)} == {spent}


def test_a_lost_ledger_opens_the_server_to_no_one(storage: Storage, ledger: SQLiteLedger, tmp_path: Path) -> None:
    now = [0.0]
    directory = KeyDirectory(storage, ledger, 60, lambda: now[0])
    assert not directory.is_active()
    key, secret = _create_key(storage)
    now[0] += 2
    assert directory.is_active()
    for file in tmp_path.glob("ledger.db*"):
        file.unlink()
    now[0] += 2
    assert directory.is_active()
    caller = directory.find(secret)
    assert caller is not None
    assert caller.key.id == key.id


def test_a_server_without_accounts_needs_no_ledger(
    storage: Storage, ledger: SQLiteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise StoreError("away")

    monkeypatch.setattr(ledger, "version", fail)
    now = [0.0]
    directory = KeyDirectory(storage, ledger, 60, lambda: now[0])
    assert not directory.is_active()
    monkeypatch.undo()
    _create_key(storage)
    monkeypatch.setattr(ledger, "version", fail)
    now[0] += 2
    assert directory.is_active()


def test_it_is_an_error_if_neither_ledger_nor_database_tells_whether_keys_are_needed(
    storage: Storage, ledger: SQLiteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    _create_key(storage)

    def fail(*_: object) -> None:
        raise StorageUnavailableError

    monkeypatch.setattr(storage.accounts, "exist", fail)
    with pytest.raises(AccountsUnavailableError):
        KeyDirectory(storage, ledger, 60).is_active()


def test_a_known_key_stays_valid_for_a_while_without_the_database(
    storage: Storage, ledger: SQLiteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, secret = _create_key(storage)
    now = [0.0]
    directory = KeyDirectory(storage, ledger, 60, lambda: now[0])
    assert directory.find(secret) is not None

    def fail(*_: object) -> None:
        raise StorageUnavailableError

    monkeypatch.setattr(storage.accounts, "find_with_parents", fail)
    ledger.bump_version()  # another key has changed, so that this one is read again
    now[0] += 59
    assert directory.find(secret) is not None
    with pytest.raises(AccountsUnavailableError):
        directory.find("sk-oc-unknown")
    now[0] += 2
    with pytest.raises(AccountsUnavailableError):
        directory.find(secret)


def test_a_key_that_is_changed_while_it_is_read_is_read_again(
    storage: Storage, ledger: SQLiteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, secret = _create_key(storage)
    now = [0.0]
    directory = KeyDirectory(storage, ledger, 60, lambda: now[0])
    assert directory.is_active()
    read = storage.accounts.find_with_parents

    def read_before_a_change(digest: str) -> Any:
        found = read(digest)
        monkeypatch.undo()
        AccountManager(storage, ledger).change("key", key.id, {"is_enabled": False})
        now[0] += 2
        assert directory.is_active()  # another call looks for changes
        return found

    monkeypatch.setattr(storage.accounts, "find_with_parents", read_before_a_change)
    directory.find(secret)
    caller = directory.find(secret)
    assert caller is not None
    assert not caller.key.is_enabled
