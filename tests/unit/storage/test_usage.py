"""Usage of calls, and its sums."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex
from typing import Any

from openai_compat.storage.opened import Stores


def row(key: str, number: int, **values: Any) -> dict[str, Any]:
    return {
        "id": f"{key}-{number}", "at": 1_800_000_000 + number, "organization_id": "org-1", "project_id": "proj_1",
        "key_id": key, "end_user": None, "endpoint": "chat", "model": "gpt", "served_by": "gpt", "status": 200,
        "error": None, "attempts": 1, "input_tokens": 10, "cached_tokens": 0, "cache_write_tokens": 0,
        "output_tokens": 5, "reasoning_tokens": 0, "is_estimated": False, "cost_nano": 7, "price": None,
        "first_token_ms": None, "duration_ms": 5, "request_id": "req_1", **values,
    }  # fmt: skip


def test_rows_are_stored_once(stores: Stores) -> None:
    key = token_hex(6)
    rows = [row(key, number) for number in range(20)]
    stores.usage.add(rows[:10])
    stores.usage.add(rows)
    stores.usage.add(rows)
    assert stores.usage.spent("key", [key], 0) == {key: 140}


def test_several_writers_of_the_same_rows_store_them_once(stores: Stores) -> None:
    key = token_hex(6)
    rows = [row(key, number) for number in range(200)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(stores.usage.add, [rows, rows[::-1], rows[50:], rows[:150]]))
    assert stores.usage.spent("key", [key], 0) == {key: 1400}


def test_calls_without_a_price_cost_nothing(stores: Stores) -> None:
    key = token_hex(6)
    stores.usage.add([row(key, 1, cost_nano=None), row(key, 2)])
    assert stores.usage.spent("key", [key], 0) == {key: 7}


def test_corrections_of_budgets_are_stored_once_and_added_up(stores: Stores) -> None:
    owner, name = token_hex(6), f"budget:{token_hex(6)}"
    amounts = (5 * 10**17, -(2 * 10**17), 7)
    rows = [
        {"id": f"{owner}-{number}", "owner": owner, "name": name, "period": number // 2, "amount": amount}
        for number, amount in enumerate(amounts)
    ]
    stores.adjustments.add(rows[:2])
    stores.adjustments.add(rows)
    sums = stores.adjustments.sums()
    assert (sums[name, 0], sums[name, 1]) == ({owner: 3 * 10**17}, {owner: 7})
