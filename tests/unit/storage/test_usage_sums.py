"""Sums of usage and exports of it, on both databases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import Any

import pytest

from openai_compat.storage.opened import Stores
from openai_compat.storage.records import UsageQuery
from openai_compat.storage.usage_sums import EXPORT_BATCH

DAY, HOUR, MINUTE = 86_400, 3600, 60
START = 1_767_225_600


def row(project: str, at: int, **values: Any) -> dict[str, Any]:
    tokens = dict.fromkeys(("cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens"), 0)
    texts = {"organization_id": "org", "key_id": f"{project}-key", "endpoint": "chat", "model": "m", "served_by": "m"}
    empty = dict.fromkeys(("end_user", "error", "price", "first_token_ms"))
    numbers = {"status": 200, "attempts": 1, "input_tokens": 10, "cost_nano": 1, "duration_ms": 5}
    ids = {"id": token_hex(8), "project_id": project, "request_id": "r", "is_estimated": False}
    return {"at": START + at, **tokens, **texts, **empty, **numbers, **ids, **values}


def sums(stores: Stores, project: str, width: int, end: int, *group_by: str, **filters: Sequence[str]) -> list[Any]:
    query = UsageQuery(START, START + end, width, group_by, {"project_id": (project,), **filters})
    names = ("bucket", *group_by, "calls")
    return [tuple(one[name] for name in names) for one in stores.usage_reader.sums(query)]


@pytest.mark.parametrize("group_by", [(), ("key_id",), ("end_user",)], ids=["days", "hours", "rows"])
def test_every_table_gives_the_same_sums(stores: Stores, owner: str, group_by: tuple[str, ...]) -> None:
    """Which table is read depends on what is asked, and must not be seen in the figures."""
    rows = [
        row(owner, at, end_user="u", output_tokens=at % 7, status=500 if at else 200) for at in range(0, 3 * DAY, HOUR)
    ]
    stores.usage.add(rows)
    query = UsageQuery(START, START + 3 * DAY, DAY, group_by, {"project_id": (owner,)})
    found = stores.usage_reader.sums(query)
    assert [one["bucket"] - START for one in found] == [0, DAY, 2 * DAY]
    assert sum(one["calls"] for one in found) == len(rows)
    assert sum(one["errors"] for one in found) == len(rows) - 1
    assert sum(one["output_tokens"] for one in found) == sum(one["output_tokens"] for one in rows)
    assert {type(one["cost_nano"]) for one in found} == {int}


@pytest.mark.parametrize("width", [MINUTE, HOUR, DAY, 7 * DAY])
def test_a_report_may_begin_long_before_the_first_call(stores: Stores, owner: str, width: int) -> None:
    stores.usage.add([row(owner, 5)])
    far = START - 10**12 // width * width
    query = UsageQuery(far, START + DAY, width, (), {"project_id": (owner,)})
    assert [(one["bucket"], one["calls"]) for one in stores.usage_reader.sums(query)] == [(START, 1)]


def test_buckets_of_hours_and_minutes(stores: Stores, owner: str) -> None:
    stores.usage.add([row(owner, at) for at in (0, MINUTE - 1, MINUTE, HOUR, DAY + HOUR)])
    assert sums(stores, owner, MINUTE, 2 * DAY) == [
        (START, 2), (START + MINUTE, 1), (START + HOUR, 1), (START + DAY + HOUR, 1)
    ]  # fmt: skip
    assert sums(stores, owner, HOUR, 2 * DAY) == [(START, 3), (START + HOUR, 1), (START + DAY + HOUR, 1)]


def test_groups_and_filters(stores: Stores, owner: str) -> None:
    models = ("a", "a", "b")
    stores.usage.add([row(owner, 5, model=model, end_user=f"user of {model}") for model in models])
    assert sums(stores, owner, DAY, DAY, "model") == [(START, "a", 2), (START, "b", 1)]
    assert sums(stores, owner, DAY, DAY, "model", model=("b", "c")) == [(START, "b", 1)]
    assert sums(stores, owner, DAY, DAY, end_user=("user of a",)) == [(START, 2)]
    assert sums(stores, owner, DAY, DAY, key_id=("another",)) == []


def test_old_rows_are_deleted_and_their_sums_stay(stores: Stores, owner: str) -> None:
    stores.usage.add([row(owner, at) for at in (0, DAY)])
    before = sums(stores, owner, DAY, 2 * DAY), sums(stores, owner, HOUR, 2 * DAY)
    while stores.usage.delete_before(START + DAY):
        pass
    assert _exported(stores, owner) == [START + DAY]
    assert (sums(stores, owner, DAY, 2 * DAY), sums(stores, owner, HOUR, 2 * DAY)) == before


def test_an_export_has_every_row_once_in_the_order_of_time(stores: Stores, owner: str) -> None:
    times = [number // 3 for number in range(2 * EXPORT_BATCH + 7)]
    stores.usage.add([row(owner, at) for at in reversed(times)])
    assert _exported(stores, owner) == [START + at for at in times]


def _exported(stores: Stores, project: str) -> list[int]:
    batches: Any = stores.usage_reader.rows(START, START + 9 * DAY, {"project_id": (project,)})
    found: list[Mapping[str, Any]] = [one for batch in batches for one in batch]
    return [one["at"] for one in found]
