"""Settlements that a worker leaves behind, because the ledger is away when it stops."""

from __future__ import annotations

import json
import logging
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openai_compat.accounts.bookkeeper import Bookkeeper
from openai_compat.accounts.leftovers import LeftoverFiles
from openai_compat.state.base import StoreError
from openai_compat.state.ledger import Charge, Ledger, Level, Meter, Settlement, sliding_meter
from openai_compat.state.redis_ledger import RedisLedger
from openai_compat.state.sqlite_ledger import SQLiteLedger
from openai_compat.storage import open_storage
from tests.support.redis_server import running_redis

BUDGET = Meter("key_1", "budget:total:UTC", 1000)
SLIDING = sliding_meter("key_1", "budget:30d:UTC", 1000, 30 * 86400.0, time.time())


class Site:
    """Workers that share a ledger, a database and a folder."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.folder = folder / "unsettled"
        self.ledger = ledger
        self._storage = open_storage(None, str(folder), 0, 0)
        self._opened = [ledger]
        ledger.start(1)

    def close(self) -> None:
        for ledger in self._opened:
            ledger.close()

    def worker(self, holder: str) -> tuple[Ledger, Bookkeeper]:
        """Return the ledger and the bookkeeper of a worker, whose work in the background the test does."""
        ledger = self.ledger.for_holder(holder)
        self._opened.append(ledger)
        bookkeeper = Bookkeeper(ledger, self._storage, lambda _: None, LeftoverFiles(self.folder))
        bookkeeper._is_working = True
        return ledger, bookkeeper

    def level(self, meter: Meter = BUDGET) -> Level:
        (level,) = self.ledger.levels([meter])
        return level

    def records(self) -> list[int]:
        return [json.loads(body)["number"] for _, body in self.ledger.records(100)]

    def files(self) -> list[Path]:
        return list(self.folder.glob("*"))

    def leave(self, holder: str, monkeypatch: pytest.MonkeyPatch, count: int = 3) -> None:
        """Let a worker reserve 100 for each of some calls, and stop while the ledger is away."""
        ledger, bookkeeper = self.worker(holder)
        for number in range(count):
            ledger.reserve(f"{holder}-{number}", [Charge(BUDGET, 100, is_held=True)])
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "settle", _fail)
            for number in range(count):
                changes = [Settlement(BUDGET, 100, 60), Settlement(SLIDING, 0, 60)]
                bookkeeper.settle(f"{holder}-{number}", changes, json.dumps({"number": number}))
            bookkeeper.close()


def _fail(*_: Any) -> None:
    raise StoreError("away")


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis")) as redis:
        yield redis.url


@pytest.fixture
def redis_ledger(redis_url: str) -> Iterator[RedisLedger]:
    ledger = RedisLedger(redis_url, "test")
    ledger._redis.flushall()
    yield ledger
    ledger.close()


@pytest.fixture(params=["sqlite", "redis"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param == "redis":
        ledger: Ledger = request.getfixturevalue("redis_ledger")
    else:
        ledger = SQLiteLedger(str(tmp_path / "ledger.db"), "test")
    opened = Site(tmp_path, ledger)
    yield opened
    opened.close()


def test_what_a_worker_left_is_settled_by_one_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.leave("stopped", monkeypatch)
    assert site.level() == Level(held=300)
    (file,) = site.files()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    workers = [site.worker(name)[1] for name in ("one", "two")]
    for worker in workers:
        worker.settle_leftovers()
    assert site.level() == Level(180)
    assert site.level(SLIDING).current == 180
    assert site.records() == [0, 1, 2]
    assert site.files() == []


def test_only_what_the_stopped_worker_held_is_released(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.leave("stopped", monkeypatch)
    ledger, bookkeeper = site.worker("running")
    ledger.reserve("own", [Charge(BUDGET, 250, is_held=True)])
    ledger.keep_alive(time.time() + 40)
    assert site.level() == Level(held=250), "the holds of the stopped worker have expired"
    bookkeeper.settle_leftovers()
    assert site.level() == Level(180, held=250)


def test_what_cannot_be_settled_stays_for_the_next_worker(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.leave("stopped", monkeypatch)
    ledger, bookkeeper = site.worker("one")
    settled: list[str] = []

    def settle_one(hold_id: str, *arguments: Any) -> None:
        if settled:
            raise StoreError("away again")
        settled.append(hold_id)
        stopped_settle(hold_id, *arguments)

    stopped = ledger.for_holder("stopped")
    stopped_settle = stopped.settle
    monkeypatch.setattr(stopped, "settle", settle_one)
    monkeypatch.setattr(ledger, "for_holder", lambda _: stopped)
    with pytest.raises(StoreError):
        bookkeeper.settle_leftovers()
    assert site.level().current == 60
    site.worker("two")[1].settle_leftovers()
    assert site.level() == Level(180)
    assert site.records() == [0, 1, 2]


def test_a_file_that_cannot_be_read_holds_up_no_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.leave("stopped", monkeypatch)
    (site.folder / "a-broken.jsonl").write_text('"holder"\n{')
    _, bookkeeper = site.worker("one")
    with pytest.raises(ValueError, match="Expecting"):
        bookkeeper.settle_leftovers()
    bookkeeper.settle_leftovers()
    assert site.level() == Level(180)
    assert [file.name for file in site.files()] == ["a-broken.taken"]


def test_a_worker_that_stops_settles_what_it_can(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, bookkeeper = site.worker("one")
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "settle", _fail)
        bookkeeper.settle("call", [Settlement(BUDGET, 0, 60)], None)
    bookkeeper.close()
    assert site.level() == Level(60)
    assert not site.folder.exists()


def test_calls_that_cannot_even_be_left_are_reported(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.folder.write_text("no folder")
    with caplog.at_level(logging.ERROR):
        site.leave("stopped", monkeypatch)
    assert "3 calls are not charged" in caplog.text


def test_a_settlement_without_its_reply_is_not_counted_again(
    tmp_path: Path, redis_ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis has executed it, and the worker that stops does not know."""
    site = Site(tmp_path, redis_ledger)
    stopping, bookkeeper = site.worker("stopped")
    stopping.reserve("call", [Charge(BUDGET, 100, is_held=True)])
    settle = stopping.settle

    def lose_reply(*arguments: Any) -> None:
        settle(*arguments)
        stopping._acknowledged.clear()  # type: ignore[attr-defined]
        raise StoreError("the reply was lost")

    monkeypatch.setattr(stopping, "settle", lose_reply)
    bookkeeper.settle("call", [Settlement(BUDGET, 100, 60)], json.dumps({"number": 0}))
    monkeypatch.setattr(stopping, "settle", _fail)
    bookkeeper.close()
    site.worker("one")[1].settle_leftovers()
    assert site.level() == Level(60)
    assert site.records() == [0]
    redis_ledger.keep_alive(time.time() + 40)
    assert redis_ledger._redis.ttl("openai-compat:{ledger}:holds:stopped") > 0, "the mark does not stay for ever"
    site.close()
