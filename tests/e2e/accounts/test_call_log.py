"""The log of calls of several workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from openai_compat.storage.records import CallFilter
from tests.support.accounts_site import AccountsSite, post
from tests.support.live_server import LiveServer
from tests.support.postgres_server import PostgresServer, running_postgres

CALLS = 40
FAILED = 4
MODELS = [{"name": "priced", "kind": "echo", "price": {"input": 1000, "output": 1000}}]


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_the_calls_of_all_workers_are_in_the_log_and_in_the_sums_after_a_stop(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Calls of the last second are stored when the workers stop."""
    settings = {"ADMIN_API_KEY": "admin-key-1"}
    if database == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        settings["DATABASE_URL"] = server.create_database("calls")
    with AccountsSite(tmp_path, MODELS, **settings) as site:
        key, secret = site.create_key()
        with LiveServer(site.settings, workers=2) as live:
            for number in range(CALLS):
                assert post(live.base_url, secret, model="priced", stream=number % 2 == 0).status_code == 200
            for _ in range(FAILED):
                assert post(live.base_url, secret, model="unknown").status_code == 404
        calls = site.storage.calls.page(CallFilter(key_id=key.id), before=None, after=None, limit=100)
        assert len(calls) == CALLS + FAILED
        assert len({call["id"] for call in calls}) == len(calls)
        end = max(call["at_ms"] for call in calls) // 1000 + 3600
        (hour,) = [row for row in site.storage.calls.totals(3600, 0, end) if row["model"] == "priced"]
        assert hour["calls"] == CALLS
        assert hour["cost_nano"] == sum(call["cost_nano"] for call in calls if call["status"] == 200)
