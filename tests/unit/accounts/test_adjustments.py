"""Corrections of budgets by administrators, which outlive the ledger."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openai_compat.accounts.account import Account, Caller
from openai_compat.accounts.bookkeeper import Bookkeeper
from openai_compat.accounts.charges import rules_for
from openai_compat.accounts.gate import CallDescription, Outcome, to_record
from openai_compat.accounts.leftovers import LeftoverFiles
from openai_compat.accounts.manager import AccountManager, NewAccount
from openai_compat.accounts.meters import Meters
from openai_compat.accounts.policy import parse_policy
from openai_compat.accounts.restoration import LedgerRestorer
from openai_compat.state.ledger import Ledger, Settlement
from openai_compat.state.redis_ledger import RedisLedger
from openai_compat.state.sqlite_ledger import SQLiteLedger
from openai_compat.storage import Storage, open_storage
from tests.support.redis_server import running_redis

DAY = 86400
NOON = 1_800_000_000.0
DOLLAR = 10**9


class Site:
    """A ledger that can be lost, and the database. The time is of the test's choice."""

    def __init__(self, folder: Path, ledger: Ledger, lose: Callable[[], object]) -> None:
        self.now = NOON
        self.ledger = ledger
        self.storage: Storage = open_storage(None, str(folder), DAY, 10**6)
        self.lose = lose
        clock = lambda: self.now  # noqa: E731
        self.bookkeeper = Bookkeeper(ledger, self.storage, lambda _: None, LeftoverFiles(folder), clock=clock)
        self.bookkeeper._is_working = True  # the test does the work
        self.meters = Meters(ledger, clock)
        self._calls = 0

    def create_key(self, **policy: Any) -> Account:
        manager = AccountManager(self.storage, self.ledger, lambda: self.now)
        return manager.create_key(NewAccount("test", policy=parse_policy(policy)))[0]

    def spend(self, key: Account, dollars: int, end_user: str | None = None) -> None:
        """Settle a call that cost `dollars`."""
        project, organization = (Account(id, "project", id, 1) for id in (key.parent_id or "", "org-default"))
        caller = Caller(key, project, organization)
        nano = dollars * DOLLAR
        changes = [Settlement(rule.meter(self.now), 0, nano) for rule in rules_for(caller, end_user)]
        call, outcome = CallDescription("chat", "gpt", "req", end_user=end_user), Outcome(200, 1, "gpt")
        self._calls += 1
        record = to_record(f"call-{self._calls}", caller, call, outcome, int(self.now), nano)
        self.bookkeeper.settle(f"call-{self._calls}", changes, json.dumps(record))

    def used(self, key: Account, end_user: str | None = None) -> dict[str, float]:
        return {state.rule.name: state.used / DOLLAR for state in self.meters.states(key, end_user)}

    def restore(self) -> None:
        """Lose the ledger once its records are in the database, and restore it."""
        self.bookkeeper.move_records()
        self.lose()
        assert self.ledger.version() is None
        LedgerRestorer(self.storage, self.ledger, lambda: self.now).restore()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis")) as redis:
        yield redis.url


@pytest.fixture(params=["sqlite", "redis"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param == "redis":
        in_redis = RedisLedger(request.getfixturevalue("redis_url"), "test")
        in_redis._redis.flushall()
        opened = Site(tmp_path, in_redis, in_redis._redis.flushall)
    else:
        in_file = SQLiteLedger(str(tmp_path / "ledger.db"), "test")
        opened = Site(tmp_path, in_file, lambda: [file.unlink() for file in tmp_path.glob("ledger.db*")])
    yield opened
    opened.ledger.close()
    opened.storage.close()


def test_a_correction_outlives_the_ledger(site: Site) -> None:
    key = site.create_key(budgets=[{"amount": 90}, {"amount": 90, "every": "month"}])
    other = site.create_key(budgets=[{"amount": 90}])
    for account in (key, other):
        site.spend(account, 30)
    site.meters.set_used(key, "budget:total:UTC", 5)
    site.spend(key, 2)
    expected = {"budget:total:UTC": 7, "budget:month:UTC": 32}
    assert site.used(key) == expected
    site.restore()
    assert (site.used(key), site.used(other)) == (expected, {"budget:total:UTC": 30})
    site.meters.set_used(key, "budget:total:UTC", 50)
    site.spend(key, 1)
    site.restore()
    assert site.used(key) == {"budget:total:UTC": 51, "budget:month:UTC": 33}


def test_a_correction_of_a_sliding_window_holds_for_both_of_its_halves(site: Site) -> None:
    key = site.create_key(budgets=[{"amount": 90, "every": "10d"}])
    site.now = NOON // (10 * DAY) * 10 * DAY
    site.spend(key, 20)
    site.now += 12 * DAY
    site.spend(key, 30)
    assert site.used(key) == pytest.approx({"budget:10d:UTC": 46})
    site.meters.set_used(key, "budget:10d:UTC", 4)
    assert site.used(key) == {"budget:10d:UTC": 4}
    site.spend(key, 1)
    site.restore()
    assert site.used(key) == {"budget:10d:UTC": 5}


def test_a_correction_ends_with_its_window(site: Site) -> None:
    key = site.create_key(budgets=[{"amount": 90, "every": "day"}])
    site.meters.set_used(key, "budget:day:UTC", 40)
    site.now += DAY
    site.restore()
    assert site.used(key) == {"budget:day:UTC": 0}


def test_a_correction_for_an_end_user_is_theirs_alone(site: Site) -> None:
    key = site.create_key(budgets=[{"amount": 90}], end_users={"budgets": [{"amount": 9}]})
    other = site.create_key(end_users={"budgets": [{"amount": 9}]})
    for name in ("Ada", "Bob"):
        site.spend(key, 3, name)
    site.meters.set_used(key, "budget:total:UTC", 0, "Ada")
    site.meters.set_used(key, "budget:total:UTC", 8, "Cy")
    site.restore()
    assert [site.used(key, name)["budget:total:UTC"] for name in ("Ada", "Bob", "Cy")] == [0, 3, 8]
    assert site.used(other, "Cy") == {"budget:total:UTC": 0}
    assert site.used(key) == {"budget:total:UTC": 6}


def test_a_correction_that_is_moved_twice_counts_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    key = site.create_key(budgets=[{"amount": 90}])
    site.meters.set_used(key, "budget:total:UTC", 40)
    records = site.ledger.records(10)
    site.bookkeeper.move_records()
    with monkeypatch.context() as patch:
        served = iter([records, []])
        patch.setattr(site.ledger, "records", lambda _: next(served))
        site.bookkeeper.move_records()
    site.restore()
    assert site.used(key) == {"budget:total:UTC": 40}


def test_a_correction_is_no_call(site: Site) -> None:
    key = site.create_key(budgets=[{"amount": 90}])
    site.spend(key, 3)
    site.meters.set_used(key, "budget:total:UTC", 40)
    site.bookkeeper.move_records()
    assert site.storage.usage.spent("key", [key.id], 0) == {key.id: 3 * DOLLAR}
