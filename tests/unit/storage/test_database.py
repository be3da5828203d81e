"""Opening, migrating and losing the database."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from secrets import token_hex

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert

from openai_compat.core.errors import ConfigurationError, StorageUnavailableError
from openai_compat.storage import location as location_module
from openai_compat.storage import open_storage
from openai_compat.storage.database import LARGE_BYTES, open_database
from openai_compat.storage.insertion import MOST_VALUES
from openai_compat.storage.location import Location, locate, to_location
from openai_compat.storage.migrate import SCHEMA_VERSION, MigrationError, is_migrated, migrate
from openai_compat.storage.native_thread import NativeThread
from openai_compat.storage.pages import Entry
from openai_compat.storage.records import INPUT, OUTPUT, DuplicateItemError, NewObject
from openai_compat.storage.tables import leases, metadata
from tests.support.postgres_server import PostgresServer, running_postgres
from tests.support.tools import ROOT
from tests.support.waiting import wait_until
from tests.unit.storage.conftest import open_stores, sqlite_location


def test_migrations_make_the_tables_that_the_code_uses(location: Location) -> None:
    migrate(location)
    assert ScriptDirectory(str(ROOT / "openai_compat/storage/migrations")).get_heads() == [SCHEMA_VERSION]
    database = open_database(location, NativeThread())
    assert database.read(lambda connection: compare_metadata(MigrationContext.configure(connection), metadata)) == []


def test_a_migrated_file_is_recognised(tmp_path: Path) -> None:
    location = to_location(f"sqlite:{tmp_path / 'objects & more?.db'}")
    assert not is_migrated(location)
    migrate(location)
    assert is_migrated(location)
    with closing(sqlite3.connect(tmp_path / "objects & more?.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    assert not is_migrated(location)


def test_concurrent_migrations_wait_for_each_other(tmp_path: Path, postgres: PostgresServer) -> None:
    for location in (sqlite_location(tmp_path), to_location(postgres.create_database("concurrent"))):
        failures: list[BaseException] = []

        def run(location: Location = location, failures: list[BaseException] = failures) -> None:
            try:
                migrate(location)
            except MigrationError as error:
                failures.append(error)

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        open_stores(location).check()


def test_a_newer_schema_is_used_as_it_is(tmp_path: Path) -> None:
    """During a rolling deployment, workers of the older version still run."""
    location = sqlite_location(tmp_path)
    open_stores(location).check()
    assert location.path is not None
    with sqlite3.connect(location.path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    open_stores(location).check()


def test_nothing_is_created_or_imported_before_the_first_use(tmp_path: Path) -> None:
    program = (
        "import sys; from openai_compat.app import create_app; create_app(); "
        "assert not {'sqlalchemy', 'alembic', 'psycopg'} & set(sys.modules)"
    )
    environment = {"PYTHONPATH": str(ROOT), "DATABASE_URL": "postgresql://nowhere.invalid/x"}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True)
    assert list(tmp_path.iterdir()) == []


def test_the_files_are_private_to_the_server(tmp_path: Path) -> None:
    storage = open_storage(None, str(tmp_path / "data"), 0, 0)
    storage.completions.create("me", NewObject("id", "{}", 1))
    files = list((tmp_path / "data").iterdir())
    assert {file.name for file in files} == {f"openai-compat.db{end}" for end in ("", "-shm", "-wal")}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    storage.close()


@pytest.mark.parametrize("url", ["sqlite:{folder}/own.db", "sqlite:///{folder}/own.db"])
def test_the_url_names_the_file(tmp_path: Path, url: str) -> None:
    open_storage(url.format(folder=tmp_path), "unused", 0, 0).check()
    assert (tmp_path / "own.db").exists()


def test_postgresql_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location_module, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"requirements-postgres\.txt"):
        locate("postgresql://host/database", "data")


def test_a_folder_that_cannot_be_created_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    storage = open_storage(None, str(tmp_path / "file" / "data"), 0, 0)
    with pytest.raises(StorageUnavailableError):
        storage.check()


def test_a_damaged_file_is_an_outage_until_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai_compat.storage.database.RETRY_INTERVAL", 0.0)
    location = sqlite_location(tmp_path)
    stores = open_stores(location)
    assert location.path is not None
    location.path.write_bytes(b"this is no database, whatever its name says " * 100)
    with pytest.raises(StorageUnavailableError) as raised:
        stores.completions.get("me", "id")
    assert str(tmp_path) not in str(raised.value)
    location.path.unlink()
    stores.check()


def test_a_deleted_file_is_not_written_to(tmp_path: Path) -> None:
    """Writes to it would succeed and be lost."""
    location = sqlite_location(tmp_path)
    stores = open_stores(location)
    stores.completions.create("me", NewObject("id_1", "{}", 1))
    assert location.path is not None
    for file in location.path.parent.iterdir():
        file.unlink()
    stores.completions.create("me", NewObject("id_2", "{}", 1))
    other = open_stores(location)
    assert other.completions.get("me", "id_2") is not None
    assert other.completions.get("me", "id_1") is None


def test_another_writer_is_waited_for(tmp_path: Path) -> None:
    location = sqlite_location(tmp_path)
    stores = open_stores(location)
    stores.check()
    assert location.path is not None
    blocker = sqlite3.connect(location.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    done = threading.Event()

    def write() -> None:
        stores.completions.create("me", NewObject("id", "{}", 1))
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert not done.wait(0.1)
    assert stores.completions.get("me", "id") is None, "readers do not wait"
    blocker.execute("COMMIT")
    thread.join()
    assert stores.completions.get("me", "id") is not None


def test_a_fork_opens_its_own_connection(location: Location) -> None:
    stores = open_stores(location)
    stores.check()
    child = os.fork()
    if child == 0:
        try:
            stores.check()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    stores.check()


def test_postgresql_may_go_away_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai_compat.storage.database.RETRY_INTERVAL", 0.0)
    with running_postgres() as server:
        stores = open_stores(to_location(server.url))
        stores.completions.create("me", NewObject("id", "{}", 1))
        server.stop()
        with pytest.raises(StorageUnavailableError):
            stores.completions.create("me", NewObject("lost", "{}", 1))
        with pytest.raises(StorageUnavailableError):
            stores.completions.create("me", NewObject("lost", '"' + "x" * LARGE_BYTES + '"', 1))
        with pytest.raises(StorageUnavailableError):
            stores.completions.get("me", "id")
        with pytest.raises(StorageUnavailableError):
            stores.check()
        server.start()
        assert stores.completions.get("me", "id") is not None


def test_a_connection_that_was_idle_is_tested_before_its_use(
    monkeypatch: pytest.MonkeyPatch, postgres: PostgresServer
) -> None:
    """A firewall or a restart of the database may have closed it, which costs no call."""
    stores = open_stores(to_location(postgres.create_database("idle")))
    stores.check()
    monkeypatch.setattr("openai_compat.storage.engines.TRUSTED_SECONDS", 0.0)
    postgres.stop()
    postgres.start()
    stores.completions.create("me", NewObject("id", "{}", 1))
    assert stores.completions.get("me", "id") is not None


def test_a_failed_transaction_leaves_nothing_behind(location: Location) -> None:
    stores = open_stores(location)
    owner = token_hex(8)

    def fail(connection: Connection) -> None:
        connection.execute(insert(leases).values(name=owner, holder=owner, expires_at=2.0**40))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stores._database.write(fail)
    assert not stores.leases.is_held(owner)


@pytest.mark.parametrize("count", [0, 1, MOST_VALUES, MOST_VALUES + 1, 20_000])
def test_an_object_is_stored_with_any_number_of_items(location: Location, owner: str, count: int) -> None:
    """PostgreSQL takes at most 65,535 parameters."""
    stores = open_stores(location)
    entries = [Entry(f"{owner}-{number}", f'"é {number}"') for number in range(count)]
    tags = {str(number): f'"{number}"' for number in range(count)}
    stores.responses.create(owner, NewObject(owner, "{}", 1, {INPUT: entries, OUTPUT: []}, tags=tags))
    chain = stores.responses.chain(owner, owner)
    assert chain is not None
    assert chain.items == [entry.body for entry in entries]
    stores.close()


def test_a_killed_migration_leaves_nothing_behind(tmp_path: Path) -> None:
    """It is one transaction, so the next process starts again."""
    for attempt in range(3):
        location = sqlite_location(tmp_path / str(attempt))
        _kill_migration(location)
        open_stores(location).check()


def _kill_migration(location: Location) -> None:
    """Kill a migration as soon as its file exists."""
    command = [sys.executable, "-m", "openai_compat.storage.migrate"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT)
    assert process.stdin is not None
    process.stdin.write(location.url.encode())
    process.stdin.close()
    path = location.path
    assert path is not None
    wait_until(path.exists)
    process.kill()
    process.wait()


COOPERATION = """
import gevent.monkey; gevent.monkey.patch_all()
import sys, gevent
from gevent._threading import Lock
from openai_compat.storage.location import to_location
from openai_compat.storage import Storage
location = to_location(sys.argv[1])
storage = Storage(location, 0, 0)
storage.check()
database = storage._open()._database
order, blocked = [], Lock()
def work(connection):
    if location.path is None:
        connection.exec_driver_sql("SELECT pg_sleep(0.2)")
    else:
        blocked.acquire()
blocked.acquire()
query = gevent.spawn(lambda: (database.read(work), order.append("query")))
gevent.sleep(0.05)
order.append("stream")
blocked.release()
query.join()
assert order == ["stream", "query"], order
"""


LARGE_WRITE = """
import gevent.monkey; gevent.monkey.patch_all()
import sys, gevent
from gevent._threading import Lock
from openai_compat.storage import open_storage
from openai_compat.storage.postgres_text import SteppedText
from openai_compat.storage.records import NewObject
storage = open_storage(sys.argv[1], "", 0, 0)
storage.check()
encode, started, blocked, body = SteppedText.dump, [], Lock(), "é" * 2_000_000
def encode_once_unblocked(self, text):
    if text == body:
        started.append(True)
        blocked.acquire()
    return encode(self, text)
SteppedText.dump = encode_once_unblocked
blocked.acquire()
writing = gevent.spawn(storage.responses.create, "me", NewObject("id", body, 1))
while not started:
    gevent.sleep(0.001)
assert storage.responses.get("me", "id") is None
blocked.release()
writing.get()
assert storage.responses.get("me", "id").body == body
"""


LARGE_TRANSFER = """
import gevent.monkey; gevent.monkey.patch_all()
import sys, gevent
from gevent._threading import Lock
from openai_compat.storage import open_storage, postgres_text
from openai_compat.storage.records import NewObject
storage = open_storage(sys.argv[1], "", 0, 0)
storage.check()
turns, blocked, body = [], Lock(), "é" * 4_000_000
def take_turn(seconds):
    turns.append(seconds)
    if len(turns) == 10:
        blocked.acquire()
postgres_text._sleep = take_turn
blocked.acquire()
writing = gevent.spawn(storage.responses.create, "me", NewObject("id", body, 1))
while len(turns) < 10 and not writing.ready():
    gevent.sleep(0.001)
assert not writing.ready(), turns
assert storage.responses.get("me", "id") is None
blocked.release()
writing.get()
assert storage.responses.get("me", "id").body == body
"""


LARGE_READ = """
import gevent.monkey; gevent.monkey.patch_all()
import sys, gevent
from gevent._threading import Lock
from openai_compat.storage import open_storage
from openai_compat.storage.records import NewObject
storage = open_storage(sys.argv[1], "", 0, 0)
blocked, body = Lock(), "é" * 2_000_000
storage.responses.create("me", NewObject("large", body, 1))
storage.responses.create("me", NewObject("small", "{}", 1))
blocked.acquire()
holding = gevent.spawn(storage._thread.call, blocked.acquire)
reading = gevent.spawn(storage.responses.get, "me", "large")
for _ in range(100):
    assert storage.responses.get("me", "small").body == "{}"
assert not reading.ready()
blocked.release()
assert reading.get().body == body
"""


def test_a_large_text_is_read_from_postgresql_by_the_native_thread(postgres: PostgresServer) -> None:
    url = postgres.create_database("large_read")
    subprocess.run([sys.executable, "-c", LARGE_READ, url], cwd=ROOT, check=True, timeout=60)


def test_other_greenlets_run_while_postgresql_gets_a_large_text(postgres: PostgresServer) -> None:
    """Copies of the text in the worker's own thread would stop all streams."""
    url = postgres.create_database("large")
    subprocess.run([sys.executable, "-c", LARGE_WRITE, url], cwd=ROOT, check=True, timeout=60)


def test_other_greenlets_run_between_the_steps_of_a_transfer_to_postgresql(postgres: PostgresServer) -> None:
    """psycopg sends with the interpreter lock held, and gives it back for too short a moment."""
    url = postgres.create_database("transfer")
    subprocess.run([sys.executable, "-c", LARGE_TRANSFER, url], cwd=ROOT, check=True, timeout=60)


def test_large_texts_are_stored_as_they_are(location: Location, owner: str) -> None:
    stores = open_stores(location)
    text, item = (
        json.dumps("é\U0001f600 " * 400_000, ensure_ascii=False),
        Entry(f"{owner}-item", f'"{"x" * LARGE_BYTES}"'),
    )
    stores.responses.create(owner, NewObject(owner, text, 1, status="queued"))
    assert stores.responses.update(owner, owner, body=text[::-1], status="completed", output=[item])
    stores.conversations.create(owner, NewObject(f"{owner}-2", "{}", 1))
    assert stores.conversations.append(owner, f"{owner}-2", [item])
    with pytest.raises(DuplicateItemError):
        stores.conversations.append(owner, f"{owner}-2", [item])
    found = stores.responses.get(owner, owner)
    assert found is not None
    assert found.body == text[::-1]
    assert stores.responses.find_items(owner, [item.id]) == {item.id: item.body}
    stores.close()


def test_other_greenlets_run_while_the_database_works(location: Location) -> None:
    """A query that blocked the event loop would end first, or never."""
    subprocess.run([sys.executable, "-c", COOPERATION, location.url], cwd=ROOT, check=True, timeout=60)
