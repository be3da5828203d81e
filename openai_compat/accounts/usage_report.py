"""Usage and costs in buckets of time, in the shapes of OpenAI's administration API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from openai_compat.storage import Storage
from openai_compat.storage.records import UsageQuery

from .money import to_dollars

Kind = Literal["completions", "embeddings", "costs"]
KINDS: Final[tuple[Kind, ...]] = ("completions", "embeddings", "costs")
ENDPOINTS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "completions": ("chat", "completions", "responses", "messages"),
    "embeddings": ("embeddings",),
}
"""Endpoints of each kind. Costs are those of all."""
COLUMNS: Final = {
    "project_id": "project_id",
    "api_key_id": "key_id",
    "user_id": "end_user",
    "model": "model",
    "line_item": "model",
}
"""Name in `group_by` -> column of a call's row."""
WIDTHS: Final = {"1m": 60, "1h": 3600, "1d": 86_400}
LIMITS: Final = {"1m": (60, 1440), "1h": (24, 168), "1d": (7, 31)}
"""Width -> buckets of a page by default, and at most, as at OpenAI."""


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """Part of a report that a client asks for. Times are Unix times. `filters` has values by the names of `COLUMNS`."""

    kind: Kind
    start: int
    end: int
    width: str = "1d"
    limit: int = 7
    group_by: tuple[str, ...] = ()
    filters: Mapping[str, Sequence[str]] | None = None
    page: int | None = None


class UsageReports:
    """Reports of usage. Every method raises `StorageUnavailableError`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def page(self, request: ReportRequest) -> dict[str, Any]:
        """Return OpenAI's page of buckets. Its start is rounded down to a whole bucket, and its end up."""
        seconds = WIDTHS[request.width]
        start = (request.page or request.start) // seconds * seconds
        last = -(-request.end // seconds) * seconds
        end = min(start + request.limit * seconds, last)
        has_more = end < last
        return {
            "object": "page",
            "data": self._buckets(request, start, end, seconds),
            "has_more": has_more,
            "next_page": str(end) if has_more else None,
        }

    def rows(self, start: int, end: int, filters: Mapping[str, Sequence[str]]) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Yield the rows of calls from `start` until before `end`, in batches. `filters` has columns of a row."""
        return self._storage.usage_reader.rows(start, end, filters)

    def totals(self, request: ReportRequest) -> list[Mapping[str, Any]]:
        """Return the sums by group, the highest cost first, with the columns of a call's row.

        The start is rounded down to a whole hour, and to a whole day if the time is longer than two days.
        """
        seconds = 3600 if request.end - request.start <= 2 * 86_400 else 86_400
        query = _to_query(request, request.start // seconds * seconds, request.end, seconds)
        totals: dict[tuple[Any, ...], Counter[str]] = {}
        for row in self._storage.usage_reader.sums(query):
            group = tuple(row[name] for name in query.group_by)
            sums = {name: value for name, value in row.items() if name not in (*query.group_by, "bucket")}
            totals.setdefault(group, Counter()).update(sums)
        rows = [{**dict(zip(query.group_by, group, strict=True)), **sums} for group, sums in totals.items()]
        return sorted(rows, key=lambda row: -row["cost_nano"])

    def _buckets(self, request: ReportRequest, start: int, end: int, seconds: int) -> list[dict[str, Any]]:
        describe = _describe_cost if request.kind == "costs" else _describe_usage
        results: dict[int, list[dict[str, Any]]] = {}
        for row in self._storage.usage_reader.sums(_to_query(request, start, end, seconds)):
            results.setdefault(row["bucket"], []).append(describe(request, row))
        return [
            {"object": "bucket", "start_time": time, "end_time": time + seconds, "results": results.get(time, [])}
            for time in range(start, end, seconds)
        ]


def _to_query(request: ReportRequest, start: int, end: int, seconds: int) -> UsageQuery:
    filters = {COLUMNS[name]: values for name, values in (request.filters or {}).items()}
    if request.kind in ENDPOINTS:
        filters["endpoint"] = ENDPOINTS[request.kind]
    group_by = tuple(dict.fromkeys(COLUMNS[name] for name in request.group_by))
    return UsageQuery(start, end, seconds, group_by, filters)


def _describe_usage(request: ReportRequest, row: Mapping[str, Any]) -> dict[str, Any]:
    output = {
        "input_cached_tokens": row["cached_tokens"],
        "input_cache_write_tokens": row["cache_write_tokens"],
        "output_tokens": row["output_tokens"],
        "output_reasoning_tokens": row["reasoning_tokens"],
    }
    return {
        "object": f"organization.usage.{request.kind}.result",
        "input_tokens": row["input_tokens"],
        **(output if request.kind == "completions" else {}),
        "num_model_requests": row["calls"],
        "num_failed_requests": row["errors"],
        **_groups(request, row, ("project_id", "user_id", "api_key_id", "model")),
    }


def _describe_cost(request: ReportRequest, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "object": "organization.costs.result",
        "amount": {"value": to_dollars(row["cost_nano"]), "currency": "usd"},
        **_groups(request, row, ("line_item", "project_id", "api_key_id", "user_id")),
    }


def _groups(request: ReportRequest, row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the values that name the group, with None for what the report is not grouped by."""
    return {name: (row[COLUMNS[name]] or None) if name in request.group_by else None for name in names}
