"""Outages of the ledger and of the database under a live server, which recovers without a restart."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

from openai_compat.state.sqlite_file import CHECK_SECONDS
from tests.support.accounts_site import AccountsSite, post
from tests.support.live_server import LiveServer
from tests.support.postgres_server import PostgresServer, running_postgres
from tests.support.redis_server import running_redis
from tests.support.waiting import wait_until

PRICE = {"request": 0.25, "output": 1}
BUDGET: dict[str, Any] = {"budgets": [{"amount": 3}]}
LIMIT: dict[str, Any] = {"limits": {"requests_per_day": 1000}}
MODELS = [
    {"name": "priced", "kind": "echo", "price": PRICE},
    {"name": "slow", "kind": "echo", "delay": 0.2, "price": PRICE},
    {"name": "endless", "kind": "echo", "delay": 3600, "price": PRICE},
]
UNAVAILABLE = (503, "accounts_unavailable")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[AccountsSite]:
    with AccountsSite(tmp_path, MODELS) as opened:
        yield opened


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


def outcome(answer: requests.Response) -> tuple[int, str | None]:
    """Return the status and the code of the error."""
    return answer.status_code, None if answer.ok else answer.json()["error"]["code"]


def begin_stream(server: LiveServer, secret: str, model: str, text: str = "a b c d e") -> requests.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": True}
    url, headers = f"{server.base_url}/chat/completions", {"Authorization": f"Bearer {secret}"}
    return requests.post(url, json=body, headers=headers, timeout=30, stream=True)


def wait_until_allowed(server: LiveServer, secret: str) -> None:
    """Make calls until one succeeds."""
    wait_until(lambda: post(server.base_url, secret, model="priced").ok, lambda: server.log()[-3000:])


def test_known_keys_go_on_while_the_database_is_away(tmp_path: Path, postgres: PostgresServer) -> None:
    settings = {"DATABASE_URL": postgres.create_database("outage")}
    with AccountsSite(tmp_path, MODELS, **settings) as site:
        key, secret = site.create_key(**BUDGET)
        with LiveServer(site.settings, workers=1) as server:
            assert post(server.base_url, secret, model="priced").ok
            site.wait_for_rows(key, 1)
            postgres.stop()
            answers = [outcome(post(server.base_url, secret, model="priced")) for _ in range(4)]
            unknown = outcome(post(server.base_url, "sk-oc-unknown", model="priced"))
            postgres.start()
            assert answers == [(200, None)] * 4
            assert unknown == UNAVAILABLE
            site.check_sums(key, 5)
            wait_until(lambda: outcome(post(server.base_url, "sk-oc-unknown"))[0] == 401)


def test_limits_are_local_and_budgets_are_refused_while_redis_is_away(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    with running_redis(folder) as redis, AccountsSite(tmp_path, MODELS, SHARED_STATE_URL=redis.url) as site:
        key, with_budget = site.create_key(**BUDGET)
        limited, with_limit = site.create_key(**LIMIT)
        with LiveServer(site.settings, workers=1) as server:
            assert post(server.base_url, with_budget, model="priced").ok
            assert post(server.base_url, with_limit, model="priced").ok
            site.wait_for_rows(key, 1)
            site.wait_for_rows(limited, 1)
            with begin_stream(server, with_budget, "slow") as running:
                redis.stop()
                assert outcome(post(server.base_url, with_budget, model="priced")) == UNAVAILABLE
                answer = post(server.base_url, with_limit, model="priced")
                assert answer.headers["x-ratelimit-remaining-requests"] == "999"
                assert running.content.endswith(b"data: [DONE]\n\n")
            with running_redis(folder):  # it has nothing of what it knew before
                wait_until_allowed(server, with_budget)
                site.check_sums(key, 3)
                site.wait_for_rows(limited, 2)
                assert len(site.rows(limited)) == 2


def test_settings_reverse_what_happens_while_redis_is_away(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    reversed_settings = {"LIMITS_WITHOUT_STORE": "refuse", "BUDGETS_WITHOUT_STORE": "allow"}
    with (
        running_redis(folder) as redis,
        AccountsSite(tmp_path, MODELS, SHARED_STATE_URL=redis.url, **reversed_settings) as site,
    ):
        key, with_budget = site.create_key(**BUDGET)
        _, with_limit = site.create_key(**LIMIT)
        with LiveServer(site.settings, workers=1) as server:
            assert post(server.base_url, with_budget, model="priced").ok
            assert post(server.base_url, with_limit, model="priced").ok
            site.wait_for_rows(key, 1)
            redis.stop()
            assert [post(server.base_url, with_budget, model="priced").status_code for _ in range(3)] == [200] * 3
            assert outcome(post(server.base_url, with_limit, model="priced")) == UNAVAILABLE
            with running_redis(folder):
                wait_until_allowed(server, with_limit)
                site.check_sums(key, 4)


def test_a_locked_ledger_is_like_one_that_is_away(site: AccountsSite) -> None:
    key, with_budget = site.create_key(**BUDGET)
    _, with_limit = site.create_key(**LIMIT)
    with LiveServer(site.settings, workers=1) as server:
        assert post(server.base_url, with_budget, model="priced").ok
        with closing(sqlite3.connect(site.folder / "ledger.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert outcome(post(server.base_url, with_budget, model="priced")) == UNAVAILABLE
            assert post(server.base_url, with_limit, model="priced").ok
            other.execute("ROLLBACK")
        wait_until_allowed(server, with_budget)
        site.check_sums(key, 2)


def test_a_deleted_ledger_is_restored(site: AccountsSite) -> None:
    key, secret = site.create_key(**BUDGET)
    with LiveServer(site.settings, workers=2) as server:
        for _ in range(8):
            assert post(server.base_url, secret, model="priced").ok
        site.wait_for_rows(key, 8)
        for file in site.folder.glob("ledger.db*"):
            file.unlink()
        time.sleep(CHECK_SECONDS)  # a worker that has just used the file goes on with it for that long
        assert post(server.base_url, "", model="priced").status_code == 401
        wait_until_allowed(server, secret)
        site.check_sums(key, 9)


@pytest.mark.parametrize("is_reload", [True, False], ids=["reload", "restart"])
def test_calls_that_end_while_redis_is_away_outlive_their_worker(tmp_path: Path, is_reload: bool) -> None:
    """With the reload, Redis has kept its contents, and thus the holds of the workers that stopped."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with (
        running_redis(folder, is_persistent=is_reload) as redis,
        AccountsSite(tmp_path, MODELS, SHARED_STATE_URL=redis.url) as site,
    ):
        key, secret = site.create_key(**BUDGET)
        with LiveServer(site.settings, workers=2) as server:
            assert post(server.base_url, secret, model="priced").ok
            site.wait_for_rows(key, 1)
            # Long enough for all of them to begin, and for Redis to stop, before one ends.
            streams = [begin_stream(server, secret, "slow", "a b c d e " * 6) for _ in range(3)]
            redis.stop()
            assert all(stream.content.endswith(b"data: [DONE]\n\n") for stream in streams)
            if is_reload:
                stopped = server.workers()
                server.process.send_signal(signal.SIGHUP)
                wait_until(lambda: stopped.isdisjoint(server.workers()), lambda: server.log()[-3000:])
                redis.start()
                wait_until_allowed(server, secret)
                site.check_sums(key, 5)
        if not is_reload:
            redis.start()
            with LiveServer(site.settings, workers=2):
                site.check_sums(key, 4)
        assert list((tmp_path / "unsettled").iterdir()) == []


def test_what_a_killed_worker_held_is_released(site: AccountsSite) -> None:
    key, secret = site.create_key(budgets=[{"amount": 3}], limits={"concurrent_requests": 1})
    with LiveServer(site.settings, workers=1) as server:
        with begin_stream(server, secret, "endless") as running:
            assert running.status_code == 200
            assert post(server.base_url, secret, model="priced").status_code == 429
            (worker,) = server.workers()
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda: server.workers() not in ({worker}, set()))
        assert post(server.base_url, secret, model="priced").status_code == 429
        site.ledger.keep_alive(time.time() + 31)
        site.ledger.end_turn()  # which the killed worker may have had
        assert site.held(key) == 0
        assert post(server.base_url, secret, model="priced").ok
        site.check_sums(key, 1)
