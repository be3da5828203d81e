"""Export of the rows of calls as CSV or as lines of JSON, in parts."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from typing import Any, Final, Literal

Format = Literal["csv", "jsonl"]
FORMATS: Final[Mapping[Format, str]] = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}
"""Format -> content type."""
COLUMNS: Final = (
    "id", "at", "organization_id", "project_id", "key_id", "end_user", "endpoint", "model", "served_by", "status",
    "error", "attempts", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens",
    "is_estimated", "cost_nano", "price", "first_token_ms", "duration_ms", "request_id",
)  # fmt: skip
"""What is exported of a row."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a text that a spreadsheet would compute."""


def encode_rows(batches: Iterator[Sequence[Mapping[str, Any]]], format: Format) -> Iterator[bytes]:
    """Yield the rows in the given format. A CSV has the names of the columns first."""
    if format == "csv":
        yield _to_csv([COLUMNS])
    for batch in batches:
        yield _to_csv(_cells(row) for row in batch) if format == "csv" else b"".join(_to_line(row) for row in batch)


def _to_line(row: Mapping[str, Any]) -> bytes:
    price = row["price"]
    values = {name: row[name] for name in COLUMNS} | {"price": None if price is None else json.loads(price)}
    return json.dumps(values).encode() + b"\n"


def _cells(row: Mapping[str, Any]) -> list[Any]:
    return [_to_cell(row[name]) for name in COLUMNS]


def _to_cell(value: Any) -> Any:
    """Return the value of a cell. A text of a client that would be a formula gets an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _to_csv(lines: Iterable[Sequence[Any]]) -> bytes:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode("utf-8", "replace")
