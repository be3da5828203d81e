"""Stored objects under kills of workers, outages of the database, and large rows, with workers as in production."""

from __future__ import annotations

import http.client
import json
import random
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from bench.chaos.kills import StoredCalls, kill_workers
from openai_compat.tools.doctor.storage import check_stored_objects
from openai_compat.tools.doctor.target import Target
from openai_compat.tools.http_probe import BaseURL
from tests.support.live_server import LiveServer
from tests.support.postgres_server import PostgresServer, running_postgres
from tests.support.responses_events import parse_events
from tests.support.waiting import wait_until

KILLS = 5


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_kills_lose_nothing_that_was_acknowledged(
    database: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """`make kills` does the same with 200 kills."""
    environ = {"DATA_DIR": str(tmp_path)}
    if database == "postgres":
        environ = {"DATABASE_URL": request.getfixturevalue("postgres").create_database("kills")}
    with LiveServer(environ, workers=2) as server:
        calls = StoredCalls(server.port)
        calls.run_while(lambda: kill_workers(calls, KILLS, server.workers, random.Random(1)))
        assert len(calls.acknowledged) > KILLS
        assert calls.lost() == []


def exchange(server: LiveServer, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(method, f"/v1/{path}", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


CHAT = {"messages": [{"role": "user", "content": "Hello!"}]}
STORED = {**CHAT, "store": True}


def test_an_outage_of_postgresql_ends_without_a_restart(postgres: PostgresServer) -> None:
    url = postgres.create_database("outage")
    with LiveServer({"DATABASE_URL": url}) as server:
        status, completion = exchange(server, "POST", "chat/completions", STORED)
        assert status == 200
        path = f"chat/completions/{completion['id']}"
        response = exchange(server, "POST", "responses", {"input": "Hi"})[1]
        postgres.stop()
        try:
            status, error = exchange(server, "GET", path)
            assert (status, error["error"]["code"]) == (503, "storage_unavailable")
            assert exchange(server, "POST", "chat/completions", CHAT)[0] == 200, "calls without state go on"
            for fields in ({}, {"store": True}, {"previous_response_id": response["id"], "store": False}):
                status, error = exchange(server, "POST", "responses", {"input": "Hi", **fields})
                assert (status, error["error"]["code"]) == (503, "storage_unavailable")
            assert exchange(server, "POST", "responses", {"input": "Hi", "store": False})[0] == 200
        finally:
            postgres.ensure_started()
        wait_until(lambda: exchange(server, "GET", path)[0] == 200, "the completion is read again")


def test_a_response_that_cannot_be_stored_does_not_end_as_completed(postgres: PostgresServer, tmp_path: Path) -> None:
    models = tmp_path / "models.json"
    models.write_text(json.dumps([{"name": "slow", "kind": "echo", "delay": 0.2}]))
    environ = {"DATABASE_URL": postgres.create_database("during"), "MODELS_FILE": str(models)}
    with LiveServer(environ) as server:
        payload = {"model": "slow", "input": "one two three four five six seven eight nine", "stream": True}
        with requests.post(f"{server.base_url}/responses", json=payload, stream=True, timeout=60) as response:
            blocks = response.iter_content(None)
            received = b""
            while b"output_text.delta" not in received:
                received += next(blocks)
            postgres.stop()
            try:
                received += b"".join(blocks)
            finally:
                postgres.ensure_started()
    events = parse_events(received)
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"]["code"] == "storage_unavailable"
    assert b"response.completed" not in received


def test_a_server_that_starts_during_an_outage_recovers(postgres: PostgresServer) -> None:
    """The workers migrate the schema if the master could not."""
    url = postgres.create_database("late")
    postgres.stop()
    try:
        with LiveServer({"DATABASE_URL": url.replace("postgres@", "postgres:secret@")}) as server:
            assert exchange(server, "POST", "chat/completions", STORED)[0] == 503
            postgres.start()
            wait_until(lambda: exchange(server, "POST", "chat/completions", STORED)[0] == 200, "a call is stored")
            assert "cannot be used" in server.log()
            assert "secret" not in server.log()
    finally:
        postgres.ensure_started()


def test_a_worker_opens_an_existing_database_before_a_call_needs_it(tmp_path: Path) -> None:
    """The imports and the connection would delay that call by a second."""
    file = tmp_path / "openai-compat.db"
    with LiveServer({"DATA_DIR": str(tmp_path)}) as server:
        assert exchange(server, "POST", "responses", {"input": "Hi"})[0] == 200
    with LiveServer({"DATA_DIR": str(tmp_path)}) as server:
        [worker] = server.workers()
        files = Path(f"/proc/{worker}/fd")
        wait_until(lambda: file in {path.resolve() for path in files.iterdir()}, "the file is open", seconds=60)


def test_without_a_writable_directory_responses_are_answered_and_not_stored(tmp_path: Path) -> None:
    """As in a container with a read-only file system. The client is told, and what needs storage is refused."""
    (tmp_path / "file").write_text("")
    with LiveServer({"DATA_DIR": str(tmp_path / "file" / "data"), "DIAGNOSTICS_ENABLED": "true"}) as server:
        for fields in ({}, {"store": None}, {"stream": True}):
            answer = requests.post(f"{server.base_url}/responses", json={"input": "Hi", **fields}, timeout=30)
            assert answer.status_code == 200
            assert answer.headers["x-openai-compat-adapted"] == "store=false"
            assert '"store":false' in answer.text
            assert '"store":true' not in answer.text
        needs = [{"store": True}, {"background": True}, {"previous_response_id": f"resp_{'0' * 32}"}]
        for fields in (*needs, {"conversation": f"conv_{'0' * 32}"}):
            status, error = exchange(server, "POST", "responses", {"input": "Hi", **fields})
            assert (status, error["error"]["code"]) == (503, "storage_read_only"), fields
            assert "data directory cannot be written" in error["error"]["message"]
        assert exchange(server, "POST", "chat/completions", STORED)[0] == 503
        without = requests.post(f"{server.base_url}/responses", json={"input": "Hi", "store": False}, timeout=30)
        assert "x-openai-compat-adapted" not in without.headers
        [finding] = check_stored_objects(_to_target(server))
        assert (finding.outcome, "DATA_DIR" in finding.message) == ("skipped", True)
        assert "nothing can be stored" in server.log()


def test_a_database_that_was_named_is_no_choice(tmp_path: Path) -> None:
    """An operator who set `DATABASE_URL` wants objects to be stored, so its failure is an outage."""
    (tmp_path / "file").write_text("")
    url = f"sqlite:{tmp_path}/file/named.db"
    with LiveServer({"DATABASE_URL": url, "DIAGNOSTICS_ENABLED": "true"}) as server:
        status, error = exchange(server, "POST", "responses", {"input": "Hi"})
        assert (status, error["error"]["code"]) == (503, "storage_unavailable")
        [finding] = check_stored_objects(_to_target(server))
        assert (finding.outcome, "does not answer" in finding.message) == ("failed", True)


def _to_target(server: LiveServer) -> Target:
    return Target(BaseURL.parse(server.base_url), {"Content-Type": "application/json"})


def test_a_worker_that_waits_for_a_locked_file_answers_other_calls(tmp_path: Path) -> None:
    """SQLite itself would sleep in C, and all streams of the worker with it."""
    with LiveServer({"DATA_DIR": str(tmp_path)}) as server:
        assert exchange(server, "POST", "chat/completions", STORED)[0] == 200
        other = sqlite3.connect(tmp_path / "openai-compat.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(exchange, server, "POST", "chat/completions", STORED)
            wait_until(lambda: exchange(server, "GET", "chat/completions")[0] == 200, "reads do not wait")
            assert exchange(server, "POST", "chat/completions", CHAT)[0] == 200
            assert not waiting.done()
            other.execute("COMMIT")
            assert waiting.result()[0] == 200
        other.close()
