"""The log of calls in the database, and the sums of calls."""

from __future__ import annotations

from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import pytest
from sqlalchemy import Connection, delete

from openai_compat.storage import calls as calls_module
from openai_compat.storage.call_tables import call_bodies, call_sums, calls
from openai_compat.storage.database import Database
from openai_compat.storage.opened import Stores
from openai_compat.storage.records import CallFilter
from tests.support.call_history import call_row

AT = 1_800_000_000  # a whole hour
ALL = CallFilter()
SIZE = 1000


@pytest.fixture(autouse=True)
def _empty(stores: Stores) -> Iterator[None]:
    yield
    for table in (call_bodies, calls, call_sums):
        stores.calls._database.write(lambda connection, table=table: connection.execute(delete(table)))


def add(stores: Stores, *rows: dict[str, Any], size: int = SIZE) -> None:
    stores.calls.add(rows, [], size)


def page(stores: Stores, filter: CallFilter = ALL, **cursor: int | None) -> list[dict[str, Any]]:
    return stores.calls.page(filter, **{"before": None, "after": None, "limit": 100, **cursor})  # type: ignore[arg-type]


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


def test_calls_are_listed_from_the_newest_and_page_by_page(stores: Stores) -> None:
    rows = [call_row(AT * 1000 + number) for number in range(5)]
    add(stores, *rows)
    newest_first = ids(rows)[::-1]
    first = page(stores, limit=2)
    second = page(stores, limit=2, before=first[-1]["number"])
    assert ids(first + second) == newest_first[:4]
    assert ids(page(stores, after=first[-1]["number"])) == newest_first[:1]
    assert page(stores, after=first[0]["number"]) == []


def test_a_call_is_found_with_everything_about_it(stores: Stores) -> None:
    row = call_row(AT * 1000, attempts='[{"target": "gpt"}]', error="café", cached_tokens=3)
    stores.calls.add([row], [{"call_id": row["id"], "request": "{}", "answer": "日"}], SIZE)
    found = stores.calls.get(row["id"])
    assert found is not None
    assert {name: found[0][name] for name in row} == row
    assert found[1] == {"call_id": row["id"], "request": "{}", "answer": "日"}
    assert stores.calls.get("call_unknown") is None


def test_filters_select_calls(stores: Stores) -> None:
    key = token_hex(4)
    plain, failed = call_row(AT), call_row(AT, is_failed=True)
    other, own = call_row(AT, model="other"), call_row(AT, key_id=key, model="other")
    add(stores, plain, failed, other, own)
    assert ids(page(stores, CallFilter(key_id=key))) == [own["id"]]
    assert ids(page(stores, CallFilter(model="other"))) == [own["id"], other["id"]]
    assert ids(page(stores, CallFilter(is_failed=True))) == [failed["id"]]
    assert ids(page(stores, CallFilter(model="gpt", is_failed=False))) == [plain["id"]]


def test_calls_beyond_the_size_are_deleted_with_their_bodies_and_not_their_sums(stores: Stores) -> None:
    rows = [call_row(AT * 1000) for _ in range(30)]
    for row in rows:
        stores.calls.add([row], [{"call_id": row["id"], "request": "", "answer": ""}], 10)
    assert ids(page(stores)) == ids(rows)[:-11:-1]
    assert stores.calls.get(rows[0]["id"]) is None
    database = stores.calls._database
    bodies = database.read(lambda connection: connection.execute(call_bodies.select()).all())
    assert len(bodies) == 10
    assert stores.calls.totals(60, AT, AT + 60)[0]["calls"] == 30


def test_a_smaller_size_deletes_in_batches(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "DELETED", 5)
    add(stores, *(call_row(AT) for _ in range(20)))
    counts = []
    for _ in range(4):
        add(stores, call_row(AT), size=10)
        counts.append(len(page(stores)))
    assert counts == [16, 12, 10, 10]


def test_calls_that_are_stored_again_count_once(stores: Stores) -> None:
    rows = [call_row(AT * 1000) for _ in range(10)]
    add(stores, *rows[:6])
    stores.calls.add(
        rows, [{"call_id": row["id"], "request": "", "answer": ""} for row in rows], SIZE, is_repeated=True
    )
    stores.calls.add(rows, [], SIZE, is_repeated=True)
    assert len(page(stores)) == 10
    assert stores.calls.totals(3600, AT, AT + 3600)[0]["calls"] == 10


def test_sums_of_minutes_and_hours_are_those_of_the_calls(stores: Stores) -> None:
    add(
        stores,
        call_row(AT * 1000, first_token_ms=100, duration_ms=300),
        call_row((AT + 59) * 1000, first_token_ms=200, duration_ms=500, cost_nano=None),
        call_row((AT + 60) * 1000, is_failed=True, first_token_ms=None, input_tokens=None, output_tokens=None),
        call_row((AT + 3600) * 1000, model="other", target="elsewhere"),
    )
    first, second = stores.calls.sums(60, AT, AT + 120, 60)
    assert first == {
        "bucket": AT, "calls": 2, "errors": 0, "input_tokens": 20, "output_tokens": 40, "cost_nano": 1000,
        "first_tokens": 2, "first_token_ms": 300, "duration_ms": 800,
    }  # fmt: skip
    assert (second["bucket"], second["errors"], second["first_tokens"], second["input_tokens"]) == (AT + 60, 1, 0, 0)
    (whole,) = stores.calls.sums(60, AT, AT + 3600, 3600)
    (hour,) = stores.calls.sums(3600, AT, AT + 3600, 3600)
    assert whole == hour
    assert hour["calls"] == 3
    totals = stores.calls.totals(3600, AT, AT + 7200)
    assert [(row["model"], row["target"], row["calls"]) for row in totals] == [
        ("gpt", "gpt", 3),
        ("other", "elsewhere", 1),
    ]


def test_models_beyond_a_number_have_common_sums(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers may choose any name where the default upstream serves all."""
    monkeypatch.setattr(calls_module, "MAX_MODELS", 3)
    for number in range(6):
        add(stores, call_row(AT * 1000, model=f"m{number}", target="gpt"))
    add(stores, *(call_row(AT * 1000, model=f"m{number}", target="gpt") for number in range(6)))
    totals = {row["model"]: row["calls"] for row in stores.calls.totals(60, AT, AT + 60)}
    assert totals == {"m0": 2, "m1": 2, "m2": 2, "(other models)": 6}


def test_old_sums_are_deleted_minutes_before_hours(stores: Stores) -> None:
    add(stores, call_row(AT * 1000))
    day = 86_400
    left = []
    for days in (1, 3, 39, 41):
        stores.calls.delete_old_sums(AT + days * day)
        left.append([len(stores.calls.totals(width, AT, AT + 3600)) for width in (60, 3600)])
    assert left == [[1, 1], [0, 1], [0, 1], [0, 0]]


def test_lists_and_sums_use_indexes(stores: Stores) -> None:
    """No table is scanned, however many calls there are."""
    database = stores.calls._database
    if database._location.path is None:
        pytest.skip("PostgreSQL scans tables that are as small as those of tests")
    listed = "SELECT id FROM calls WHERE {} AND number < 5 ORDER BY number DESC LIMIT 5"
    for condition in ("key_id = 'k'", "model = 'm'", "is_failed = 1"):
        assert "INDEX calls_by_" in plan_of(database, listed.format(condition))
    summed = "SELECT sum(calls) FROM call_sums WHERE width = 60 AND start >= 5 AND start < 9"
    assert "PRIMARY KEY (width=? AND start>? AND start<?)" in plan_of(database, summed)


def plan_of(database: Database, statement: str) -> str:
    """Return the only step of a query."""

    def explain(connection: Connection) -> str:
        (step,) = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}").all()
        return str(step[3])

    return database.read(explain)
