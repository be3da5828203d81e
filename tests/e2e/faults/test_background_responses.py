"""Background responses with the official Python client, in SQLite and PostgreSQL, with kills and stops of workers."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.postgres_server import PostgresServer, running_postgres
from tests.support.responses_events import check_events, parse_events
from tests.support.waiting import wait_until

MODELS = [
    {"name": "echo", "kind": "echo"},
    {"name": "slow", "kind": "echo", "delay": 0.05},
    {"name": "slower", "kind": "echo", "delay": 0.3},
    {"name": "endless", "kind": "echo", "delay": 3600},
    {"name": "away", "kind": "openai", "base_url": "http://127.0.0.1:9/v1", "responses": "translated"},
]
SLOTS = 6
"""Concurrent calls of each of the two workers."""
TEXT = "one two three four five six seven eight nine ten"


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


def settings_of(folder: Path, **others: str) -> dict[str, str]:
    (folder / "models.json").write_text(json.dumps(MODELS))
    return {"MODELS_FILE": str(folder / "models.json"), "DATA_DIR": str(folder), **others}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Yield a server with two workers, so that polling reaches the other one as well."""
    settings = settings_of(
        tmp_path_factory.mktemp("server"), MAX_CONCURRENT_REQUESTS=str(SLOTS), MAX_QUEUED_REQUESTS="0"
    )
    if request.param == "postgres":
        settings["DATABASE_URL"] = request.getfixturevalue("postgres").create_database("background")
    with LiveServer(settings, workers=2) as live:
        yield live


def client_of(server: LiveServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0)


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with client_of(server) as client:
        yield client


def start(client: openai.OpenAI, model: str, **fields: Any) -> Any:
    return client.responses.create(model=model, input=TEXT, background=True, **fields)


def wait_for_status(client: openai.OpenAI, id: str, status: str) -> Any:
    wait_until(lambda: client.responses.retrieve(id).status == status, f"the response is {status}")
    return client.responses.retrieve(id)


def wait_for_end(client: openai.OpenAI, id: str) -> Any:
    """Return the response once it has ended, also if the database is away meanwhile."""

    def has_ended() -> bool:
        try:
            return client.responses.retrieve(id).status not in ("queued", "in_progress")
        except openai.InternalServerError:
            return False

    wait_until(has_ended, "the response has ended")
    return client.responses.retrieve(id)


def test_a_background_response_is_polled(client: openai.OpenAI) -> None:
    queued = start(client, "slow", metadata={"a": "b"})
    assert (queued.status, queued.background, queued.output, queued.usage) == ("queued", True, [], None)
    done = wait_for_status(client, queued.id, "completed")
    assert (done.output_text, done.background, done.metadata) == (TEXT, True, {"a": "b"})
    assert done.usage.output_tokens > 0
    assert client.responses.cancel(queued.id).status == "completed", "a response that has ended stays as it is"
    following = client.responses.create(model="echo", input="Go on", previous_response_id=queued.id)
    assert following.output_text == "Go on"


def test_the_events_are_followed_and_replayed(client: openai.OpenAI, server: LiveServer) -> None:
    first: list[Any] = []
    with start(client, "slow", stream=True) as stream:
        for event in stream:
            first.append(event)
            if event.type == "response.output_text.delta":
                break
    assert [event.type for event in first[:3]] == ["response.created", "response.queued", "response.in_progress"]
    id, last = first[0].response.id, first[-1].sequence_number
    with client.responses.retrieve(id, stream=True, starting_after=last) as stream:
        rest = list(stream)
    numbers = [event.sequence_number for event in (*first, *rest)]
    assert numbers == list(range(len(numbers)))
    assert rest[-1].type == "response.completed"
    assert rest[-1].response.output_text == TEXT
    query = {"stream": "true"}
    headers = {"Authorization": "Bearer any"}
    replayed = requests.get(f"{server.base_url}/responses/{id}", params=query, headers=headers, timeout=20).content
    events = parse_events(replayed)
    assert [event["sequence_number"] for event in events] == numbers
    kept = [event for event in events if event["type"] != "response.queued"]
    check_events([{**event, "sequence_number": number} for number, event in enumerate(kept)])
    assert client.responses.retrieve(id).output_text == TEXT


def test_the_stream_helper(client: openai.OpenAI) -> None:
    with client.responses.stream(model="slow", input=TEXT, background=True) as stream:
        assert stream.until_done().get_final_response().output_text == TEXT


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_cancelled_response_ends(client: openai.OpenAI, is_streamed: bool) -> None:
    if is_streamed:
        with start(client, "endless", stream=True) as stream:
            id = next(iter(stream)).response.id
            assert client.responses.cancel(id).status == "cancelled"
            types = [event.type for event in stream]
        assert not {"response.completed", "response.failed"} & set(types)
    else:
        id = start(client, "endless").id
        assert client.responses.cancel(id).status == "cancelled"
    assert client.responses.cancel(id).status == "cancelled"
    assert client.responses.retrieve(id).status == "cancelled"


def fill(client: openai.OpenAI) -> list[str]:
    """Start responses until a worker has no slot, and return their ids."""
    ids: list[str] = []
    while len(ids) <= 2 * SLOTS:
        try:
            ids.append(start(client, "endless").id)
        except openai.InternalServerError:
            return ids
    raise AssertionError("the limit on concurrent calls does not count background responses")


@pytest.mark.parametrize("end", ["cancel", "delete"])
def test_a_response_has_a_slot_of_the_concurrency_limit_until_it_ends(client: openai.OpenAI, end: str) -> None:
    def is_filled_again() -> bool:
        ids = fill(client)
        for id in ids:
            getattr(client.responses, end)(id)
        return len(ids) >= SLOTS

    for _ in range(3):
        wait_until(is_filled_again, "the slots are free again")
    wait_until(lambda: _answers(client), "a slot is free")


def _answers(client: openai.OpenAI) -> bool:
    try:
        return all(client.responses.create(model="echo", input="Hi", store=False) for _ in range(10))
    except openai.InternalServerError:
        return False


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_failure_is_the_status_of_the_response(client: openai.OpenAI, is_streamed: bool) -> None:
    if is_streamed:
        with start(client, "away", stream=True) as stream:
            id = next(iter(stream)).response.id
            with pytest.raises(openai.APIError) as raised:
                list(stream)
        assert raised.value.code == "upstream_unreachable"
    else:
        id = start(client, "away").id
    failed = wait_for_status(client, id, "failed")
    assert failed.error.code == "upstream_unreachable"


def test_a_conversation_is_locked_until_the_end(client: openai.OpenAI) -> None:
    conversation = client.conversations.create().id
    id = start(client, "slow", conversation=conversation).id
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model="echo", input="Hi", conversation=conversation)
    assert raised.value.code == "conversation_locked"
    wait_for_status(client, id, "completed")
    assert len(list(client.conversations.items.list(conversation))) == 2
    client.responses.create(model="echo", input="Hi", conversation=conversation)


def test_what_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        start(client, "echo", store=False)
    assert raised.value.param == "background"
    plain = client.responses.create(model="echo", input="Hi")
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        client.responses.cancel(plain.id)
    with pytest.raises(openai.NotFoundError) as missing:
        client.responses.retrieve(plain.id, stream=True)
    assert missing.value.param == "stream"
    running = start(client, "endless")
    with pytest.raises(openai.BadRequestError, match="not complete"):
        client.responses.create(model="echo", input="Hi", previous_response_id=running.id)
    with pytest.raises(openai.NotFoundError):
        client.with_options(api_key="other").responses.cancel(running.id)
    client.responses.cancel(running.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel(f"resp_{'0' * 32}")


def test_the_response_of_a_killed_worker_fails_once_its_lease_has_expired(tmp_path: Path) -> None:
    with LiveServer(settings_of(tmp_path)) as server, client_of(server) as client:
        plain = start(client, "endless").id
        with start(client, "endless", stream=True) as stream:
            streamed = next(iter(stream)).response.id
            (worker,) = server.workers()
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda: worker not in server.workers() and server.workers(), "the worker is replaced")
        assert client.responses.retrieve(plain).status in ("queued", "in_progress")
        expire_leases(tmp_path)
        failed = client.responses.retrieve(plain)
        assert failed.status == "failed"
        assert failed.error is not None
        with client.responses.retrieve(streamed, stream=True) as stream, pytest.raises(openai.APIError):
            list(stream)
        assert client.responses.retrieve(streamed).status == "failed"


def test_a_short_outage_of_the_database_loses_no_background_response(postgres: PostgresServer, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, DATABASE_URL=postgres.create_database("short"))
    with LiveServer(settings) as server, client_of(server) as client:
        plain = start(client, "slow").id
        with start(client, "slow", stream=True) as stream:
            streamed = next(iter(stream)).response.id
        postgres.stop()
        try:
            client.responses.create(model="slow", input=TEXT, store=False)  # takes as long as the other two
        finally:
            postgres.ensure_started()
        assert wait_for_end(client, plain).output_text == TEXT
        assert wait_for_end(client, streamed).output_text == TEXT
        with client.responses.retrieve(streamed, stream=True) as stream:
            events = list(stream)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[-1].type == "response.completed"


def expire_leases(folder: Path) -> None:
    database = sqlite3.connect(folder / "openai-compat.db", timeout=10)
    with database:
        database.execute("UPDATE leases SET expires_at = 0")
    database.close()


def test_a_stop_waits_for_background_responses(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with LiveServer(settings) as server, client_of(server) as client:
        id = start(client, "slower").id
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(20)
    with LiveServer(settings) as server, client_of(server) as client:
        assert client.responses.retrieve(id).output_text == TEXT


def test_a_stop_ends_responses_that_exceed_the_graceful_timeout(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, GRACEFUL_TIMEOUT="1")
    with LiveServer(settings) as server, client_of(server) as client:
        id = start(client, "endless").id
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(20)
    with LiveServer(settings) as server, client_of(server) as client:
        failed = client.responses.retrieve(id)
        assert failed.status == "failed"
        assert failed.error is not None
