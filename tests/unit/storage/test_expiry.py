"""Expiry of stored objects by age and by size."""

from __future__ import annotations

from pathlib import Path
from secrets import token_hex

import pytest
from sqlalchemy import func, select

from openai_compat.storage.completions import CompletionStore
from openai_compat.storage.conversations import ConversationStore
from openai_compat.storage.database import Database, open_database
from openai_compat.storage.expiry import BATCH, Expiry
from openai_compat.storage.leases import LeaseStore
from openai_compat.storage.location import to_location
from openai_compat.storage.native_thread import NativeThread
from openai_compat.storage.objects import Lifetime
from openai_compat.storage.pages import Cursor, Entry
from openai_compat.storage.records import NewObject
from openai_compat.storage.tables import items, objects
from tests.support.postgres_server import PostgresServer
from tests.support.waiting import wait_until
from tests.unit.storage.conftest import sqlite_location


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """Return an empty database, as a limit on the size is one for all owners."""
    if request.param == "sqlite":
        location = sqlite_location(tmp_path)
    else:
        postgres: PostgresServer = request.getfixturevalue("postgres")
        location = to_location(postgres.create_database(f"own_{token_hex(4)}"))
    return open_database(location, NativeThread())


def count(database: Database, table: type | object) -> int:
    return database.read(lambda connection: connection.execute(select(func.count()).select_from(table)).scalar_one())


def test_an_object_disappears_after_its_lifetime(database: Database) -> None:
    clock = Clock()
    lifetime = Lifetime(100, clock)
    expiry = Expiry(database, LeaseStore(database), lifetime, 0)
    store = ConversationStore(database, lifetime, lambda: None)
    for number in range(BATCH + 5):
        store.create("me", NewObject(f"old_{number}", "{}", 1, {"items": [Entry("a", "1")]}))
    store.create("me", NewObject("used", "{}", 1))
    clock.now += 60
    store.append("me", "used", [Entry("b", "2")])
    clock.now += 60
    assert store.get("me", "old_0") is None
    assert [entry.id for entry in store.page("me", Cursor(100, "asc")).entries] == ["used"]
    assert not store.append("me", "old_0", [Entry("c", "3")])
    assert store.get("me", "used") is not None, "an object that is used stays"
    assert count(database, objects) == BATCH + 6
    expiry.sweep()
    assert (count(database, objects), count(database, items)) == (1, 1)


def test_the_objects_unused_for_longest_make_space(database: Database) -> None:
    clock = Clock()
    lifetime = Lifetime(0, clock)
    store = CompletionStore(database, lifetime, lambda: None)
    for number in range(8):
        clock.now += 1
        store.create("me", NewObject(f"id_{number}", "x" * 80, 1, {"messages": [Entry("m", "y" * 20)]}))
    clock.now += 1
    store.update("me", "id_0", "z" * 80, {})
    Expiry(database, LeaseStore(database), lifetime, 350).sweep()
    page = store.page("me", Cursor(10, "asc"), None, {})
    assert [entry.id for entry in page.entries] == ["id_0", "id_6", "id_7"]


def test_a_write_starts_the_sweep(database: Database) -> None:
    clock = Clock()
    lifetime = Lifetime(100, clock)
    expiry = Expiry(database, LeaseStore(database), lifetime, 0)
    CompletionStore(database, lifetime, lambda: None).create("me", NewObject("old", "{}", 1))
    clock.now += 200
    CompletionStore(database, lifetime, expiry.start_if_due).create("me", NewObject("new", "{}", 1))
    wait_until(lambda: count(database, objects) == 1, "the expired object is deleted")
