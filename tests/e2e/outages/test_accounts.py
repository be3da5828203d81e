"""The database and the ledger away for two minutes under load, `make test-outages`.

`OUTAGE_SECONDS` shortens the outage, for work on these tests.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.accounts_site import AccountsSite, post
from tests.support.live_server import LiveServer
from tests.support.postgres_server import running_postgres
from tests.support.redis_server import running_redis
from tests.support.waiting import wait_until

SECONDS = float(os.environ.get("OUTAGE_SECONDS", "120"))
CALLERS = 4
PAUSE = 0.1
MODELS = [{"name": "priced", "kind": "echo", "price": {"request": 0.25, "output": 1}}]
BUDGET: dict[str, Any] = {"budgets": [{"amount": 100_000}]}
pytestmark = pytest.mark.timeout(60 + 3 * SECONDS)
LIMIT: dict[str, Any] = {"limits": {"requests_per_day": 1_000_000}}


class Load:
    """Callers that repeat calls with one key in a `with` block. `outcomes` has the number of answers by status.

    `since` has those after `mark`.
    """

    def __init__(self, server: LiveServer, secret: str) -> None:
        self._server = server
        self._secret = secret
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._repeat) for _ in range(CALLERS)]
        self.outcomes: Counter[int] = Counter()
        self.since: Counter[int] = Counter()
        self._last = self._same = 0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def mark(self) -> None:
        """Count the answers in `since` anew."""
        with self._lock:
            self.since.clear()

    def wait_for(self, status: int) -> None:
        """Wait until the last hundred answers had the status."""
        wait_until(lambda: self._last == status and self._same >= 100, lambda: f"answers are {status}: {self.since}")

    def _repeat(self) -> None:
        while not self._is_over.wait(PAUSE):
            status = post(self._server.base_url, self._secret, model="priced").status_code
            with self._lock:
                self.outcomes[status] += 1
                self.since[status] += 1
                self._same = self._same + 1 if status == self._last else 1
                self._last = status


def during(seconds: float, check: Callable[[], None]) -> None:
    """Repeat `check` for some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        check()
        time.sleep(0.5)


def check_unknown_key(server: LiveServer) -> None:
    assert post(server.base_url, "sk-oc-unknown", model="priced").status_code == 503


def test_the_database_is_away(tmp_path: Path) -> None:
    with (
        running_postgres() as postgres,
        AccountsSite(tmp_path, MODELS, DATABASE_URL=postgres.create_database("accounts")) as site,
    ):
        key, secret = site.create_key(**BUDGET)
        with LiveServer(site.settings, workers=2) as server:
            with Load(server, secret) as load:
                wait_until(lambda: load.outcomes[200] > 100)
                postgres.stop()
                during(SECONDS, lambda: check_unknown_key(server))
                postgres.start()
                wait_until(lambda: post(server.base_url, "sk-oc-unknown", model="priced").status_code == 401)
            assert set(load.outcomes) == {200}
            site.check_sums(key, load.outcomes[200])


@pytest.mark.parametrize("is_silent", [False, True], ids=["stopped", "silent"])
def test_redis_is_away(tmp_path: Path, is_silent: bool) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    with (
        running_redis(folder, is_persistent=True) as redis,
        AccountsSite(tmp_path, MODELS, SHARED_STATE_URL=redis.url) as site,
    ):
        key, with_budget = site.create_key(**BUDGET)
        limited, with_limit = site.create_key(**LIMIT)
        with LiveServer(site.settings, workers=2) as server:
            with Load(server, with_budget) as spending, Load(server, with_limit) as counting:
                wait_until(lambda: spending.outcomes[200] > 100 and counting.outcomes[200] > 100)
                (redis.pause if is_silent else redis.stop)()
                spending.wait_for(503)
                spending.mark()
                during(SECONDS, lambda: None)
                assert set(spending.since) == {503}
                (redis.resume if is_silent else redis.start)()
                spending.wait_for(200)
            assert set(counting.outcomes) == {200}
            assert set(spending.outcomes) == {200, 503}
            site.check_sums(key, spending.outcomes[200])
            assert len(site.wait_for_rows(limited, counting.outcomes[200])) == counting.outcomes[200]
