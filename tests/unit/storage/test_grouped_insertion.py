"""Objects of several calls in one transaction of SQLite."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from openai_compat.storage.grouped_insertion import MOST_BYTES, GroupedInsertion
from openai_compat.storage.insertion import NewRows, to_rows
from openai_compat.storage.migrate import migrate
from openai_compat.storage.pages import Entry
from openai_compat.storage.records import NewObject
from tests.unit.storage.conftest import sqlite_location


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    location = sqlite_location(tmp_path_factory.mktemp("empty"))
    migrate(location)
    assert location.path is not None
    return location.path


@pytest.fixture
def database(empty: Path, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(shutil.copy(empty, tmp_path), isolation_level=None)) as connection:
        yield connection


def rows(id: str, body: str = "{}") -> NewRows:
    return to_rows("me", "response", 1, NewObject(id, body, 1, {"input": [Entry(f"item of {id}", body)] * 20}))


def stored(database: sqlite3.Connection) -> list[tuple[str, int]]:
    counts = "SELECT id, count(*) FROM objects JOIN items ON object_number = number GROUP BY id ORDER BY id"
    return database.execute(counts).fetchall()


def test_waiting_objects_share_a_transaction(database: sqlite3.Connection) -> None:
    insertion = GroupedInsertion()
    one, other = insertion.add(rows("a")), insertion.add(rows("b"))
    statements: list[str] = []
    database.set_trace_callback(statements.append)
    insertion.insert(database, one)
    insertion.insert(database, other)
    database.set_trace_callback(None)
    assert statements.count("COMMIT") == 1
    assert stored(database) == [("a", 20), ("b", 20)]


@pytest.mark.parametrize("bad", [rows("known"), rows("bad", "\ud800")], ids=["duplicate", "surrogate"])
def test_an_object_that_cannot_be_stored_fails_its_own_call_only(database: sqlite3.Connection, bad: NewRows) -> None:
    insertion = GroupedInsertion()
    insertion.insert(database, insertion.add(rows("known")))
    first, failing, last = insertion.add(rows("a")), insertion.add(bad), insertion.add(rows("b"))
    insertion.insert(database, first)
    with pytest.raises((sqlite3.IntegrityError, UnicodeEncodeError)):
        insertion.insert(database, failing)
    insertion.insert(database, last)
    insertion.insert(database, insertion.add(rows("c")))
    assert stored(database) == [("a", 20), ("b", 20), ("c", 20), ("known", 20)]


def test_a_large_object_does_not_wait_for_others(database: sqlite3.Connection) -> None:
    insertion = GroupedInsertion()
    large = insertion.add(rows("large", "x" * (MOST_BYTES // 20)))
    insertion.insert(database, insertion.add(rows("small")))
    assert stored(database) == [("small", 20)]
    insertion.insert(database, large)
    assert stored(database) == [("large", 20), ("small", 20)]
