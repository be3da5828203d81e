"""Records of calls on their way into the database."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openai_compat.accounts import bookkeeper as module
from openai_compat.accounts.bookkeeper import Bookkeeper
from openai_compat.accounts.leftovers import LeftoverFiles
from openai_compat.state.base import StoreError
from openai_compat.state.sqlite_ledger import SQLiteLedger
from openai_compat.storage import Storage, open_storage
from tests.support.waiting import wait_until


def record(id: str, **values: Any) -> str:
    row = {
        "id": id, "at": 1_800_000_000, "organization_id": "org-1", "project_id": "proj_1", "key_id": "key_1",
        "end_user": None, "endpoint": "chat", "model": "gpt", "served_by": "gpt", "status": 200, "error": None,
        "attempts": 1, "input_tokens": 10, "cached_tokens": 0, "cache_write_tokens": 0, "output_tokens": 5,
        "reasoning_tokens": 0, "is_estimated": False, "cost_nano": 7, "price": None, "first_token_ms": None,
        "duration_ms": 5, "request_id": "req_1", **values,
    }  # fmt: skip
    return json.dumps(row)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SQLiteLedger]:
    ledger = SQLiteLedger(str(tmp_path / "ledger.db"), "here")
    ledger.start(1)
    yield ledger
    ledger.close()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(None, str(tmp_path), 0, 0)


@pytest.fixture
def bookkeeper(ledger: SQLiteLedger, storage: Storage, tmp_path: Path) -> Iterator[Bookkeeper]:
    bookkeeper = Bookkeeper(ledger, storage, lambda _: None, LeftoverFiles(tmp_path / "left"))
    yield bookkeeper
    bookkeeper.close()


def test_a_record_that_cannot_be_stored_holds_up_no_other(
    ledger: SQLiteLedger, storage: Storage, bookkeeper: Bookkeeper, caplog: pytest.LogCaptureFixture
) -> None:
    for body in (record("a"), record("b", input_tokens=2**70), record("c")):
        ledger.settle("hold", [], body)
    bookkeeper.move_records()
    assert storage.usage.spent("key", ["key_1"], 0) == {"key_1": 14}
    assert not ledger.records(10)
    assert "cannot be stored" in caplog.text


def test_null_characters_are_replaced(ledger: SQLiteLedger, storage: Storage, bookkeeper: Bookkeeper) -> None:
    ledger.settle("hold", [], record("a", end_user="a\x00b"))
    bookkeeper.move_records()
    assert storage.usage.spent_by_end_user("key", "key_1", 0) == {"a\ufffdb": 7}


def test_the_work_goes_on_after_any_failure(
    ledger: SQLiteLedger, storage: Storage, bookkeeper: Bookkeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOVE_SECONDS", 0.01)
    monkeypatch.setattr(module, "TIDY_SECONDS", 0.0)
    monkeypatch.setattr(logging.getLogger(module.__name__), "disabled", True)
    turns: list[float] = []

    def fail(now: float) -> None:
        turns.append(time.monotonic())
        raise RuntimeError

    monkeypatch.setattr(bookkeeper, "_tidy", fail)
    bookkeeper.start()
    wait_until(lambda: len(turns) > 2)


def test_the_work_begins_without_a_call_once_there_are_accounts(
    ledger: SQLiteLedger, storage: Storage, bookkeeper: Bookkeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STARTING_DELAY", 0.0)
    ledger.settle("hold", [], record("a"))
    bookkeeper.start_soon()
    wait_until(lambda: not ledger.records(10))
    assert storage.usage.spent("key", ["key_1"], 0) == {"key_1": 7}


def test_a_server_without_accounts_begins_no_work(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STARTING_DELAY", 0.0)
    unused = SQLiteLedger(str(tmp_path / "unused.db"), "here")
    asked = threading.Event()
    monkeypatch.setattr(unused, "version", asked.set)
    bookkeeper = Bookkeeper(unused, storage, lambda _: None, LeftoverFiles(tmp_path / "left"))
    bookkeeper.start_soon()
    assert asked.wait(20)
    bookkeeper.close()
    assert not (tmp_path / "unused.db").exists()
    assert not bookkeeper._is_working


def test_a_settlement_that_is_underway_when_the_process_stops_is_not_lost(
    ledger: SQLiteLedger, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_begun, may_fail = threading.Event(), threading.Event()

    def fail_late(*_: Any) -> None:
        has_begun.set()
        assert may_fail.wait(20)
        raise StoreError("the ledger is away")

    monkeypatch.setattr(ledger, "settle", fail_late)
    leftovers = LeftoverFiles(tmp_path / "left")
    bookkeeper = Bookkeeper(ledger, storage, lambda _: None, leftovers)
    call = threading.Thread(target=bookkeeper.settle, args=("hold", [], record("a")))
    call.start()
    assert has_begun.wait(20)
    closing = threading.Thread(target=bookkeeper.close)
    closing.start()
    wait_until(bookkeeper._is_closed.is_set)
    may_fail.set()
    call.join()
    closing.join()
    left = leftovers.take()
    assert left is not None
    assert [pending.hold_id for pending in left.pending] == ["hold"]
