"""Lookup of keys and its cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from openai_compat.accounts import directory as module
from openai_compat.accounts.directory import KeyDirectory
from openai_compat.accounts.manager import AccountManager, NewAccount
from openai_compat.core.errors import AccountsUnavailableError, StorageUnavailableError
from openai_compat.state.sqlite_ledger import SQLiteLedger
from openai_compat.storage import Storage, open_storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(None, str(tmp_path), 0, 0)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SQLiteLedger]:
    ledger = SQLiteLedger(str(tmp_path / "ledger.db"), "here")
    yield ledger
    ledger.close()


def test_unknown_keys_do_not_displace_a_known_one(
    storage: Storage, ledger: SQLiteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CACHED", 3)
    key, secret = AccountManager(storage, ledger).create_key(NewAccount("test"))
    keys = KeyDirectory(storage, ledger, 600)
    assert keys.find(secret) is not None
    for number in range(10):
        assert keys.find(f"sk-guess-{number}") is None
    ledger.bump_version()
    keys.look_again()

    def fail(_: str) -> None:
        raise StorageUnavailableError

    monkeypatch.setattr(storage.accounts, "find_with_parents", fail)
    found = keys.find(secret)
    assert found is not None
    assert found.key.id == key.id
    with pytest.raises(AccountsUnavailableError):
        keys.find("sk-another")


def test_a_deleted_key_is_unknown(storage: Storage, ledger: SQLiteLedger) -> None:
    manager = AccountManager(storage, ledger)
    key, secret = manager.create_key(NewAccount("test"))
    keys = KeyDirectory(storage, ledger, 600)
    assert keys.find(secret) is not None
    manager.delete(key)
    keys.look_again()
    assert keys.find(secret) is None
