"""Records of calls and of corrections of budgets, which wait in the ledger, as rows of the database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from openai_compat.state.ledger import Settlement

ADJUSTMENTS: Final = "adjustments"
"""Field that only the record of a correction has."""


class Rows(NamedTuple):
    """Rows of some records."""

    calls: list[dict[str, Any]]
    adjustments: list[dict[str, Any]]


def to_adjustment_record(id: str, changes: Sequence[Settlement]) -> str:
    """Return the record of a correction of a budget."""
    rows = [
        {"id": f"{id}-{number}", "owner": meter.owner, "name": meter.name, "period": meter.window, "amount": added}
        for number, (meter, _, added) in enumerate(changes)
    ]
    return json.dumps({ADJUSTMENTS: rows})


def to_rows(records: Sequence[str]) -> Rows:
    """Return the rows of records."""
    rows = Rows([], [])
    for body in records:
        record = _load(body)
        if ADJUSTMENTS in record:
            rows.adjustments.extend(record[ADJUSTMENTS])
        else:
            price = record["price"]
            record["price"] = None if price is None else _to_json(tuple(price.items()))
            rows.calls.append(record)
    return rows


def _load(body: str) -> dict[str, Any]:
    """Return a record. PostgreSQL takes no text with a null character."""
    record: dict[str, Any] = json.loads(body.replace("\\u0000", "\\ufffd"))
    return record


@lru_cache(maxsize=256)
def _to_json(items: tuple[tuple[str, int], ...]) -> str:
    """Return an object as JSON. Most calls have one of few prices."""
    return json.dumps(dict(items))
