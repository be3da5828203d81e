"""What the admin page shows of the log of calls, as JSON."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openai_compat.accounts.money import to_dollars
from openai_compat.core.errors import ObjectNotFoundError
from openai_compat.core.types import JSON
from openai_compat.storage import Storage
from openai_compat.storage.records import CallFilter, is_valid_id


@dataclass(frozen=True, slots=True)
class Span:
    """A time until now, in buckets of a plot. `width` is that of the sums that it is read from."""

    seconds: int
    bucket: int
    width: int


SPANS: Final[Mapping[str, Span]] = {
    "hour": Span(3600, 60, 60),
    "day": Span(86_400, 900, 60),
    "month": Span(30 * 86_400, 6 * 3600, 3600),
}
PLOTTED: Final = ("calls", "errors", "input_tokens", "output_tokens", "cost", "first_token_ms", "duration_ms")
MAX_PAGE: Final = 200


class CallReports:
    """Reports of the log of calls. Every method raises `StorageUnavailableError`."""

    def __init__(self, storage: Storage, clock: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._clock = clock

    def overview(self, span_name: str) -> JSON:
        """Return totals, a row for each model, and the values of the plots, of the time named in `SPANS`."""
        span = SPANS[span_name]
        start, end = self._times(span)
        rows = self._storage.calls.totals(span.width, start, end)
        return {
            "span": span_name,
            "start": start,
            "end": end,
            "bucket": span.bucket,
            "totals": _to_figures(_add(rows)),
            "models": _by_model(rows),
            "series": self._series(span, start, end),
        }

    def by_target(self, span_name: str) -> dict[tuple[str, str], JSON]:
        """Return the figures of each model and target."""
        span = SPANS[span_name]
        rows = self._storage.calls.totals(span.width, *self._times(span))
        return {(row["model"], row["target"]): _to_figures(row) for row in rows}

    def page(self, filter: CallFilter, before: int | None, after: int | None, limit: int) -> JSON:
        """Return calls, the newest first. `number` is the cursor for the next page."""
        rows = self._storage.calls.page(filter, before=before, after=after, limit=limit + 1)
        return {"data": [_to_call(row) for row in rows[:limit]], "has_more": len(rows) > limit}

    def call(self, id: str) -> JSON:
        """Return one call with its attempts, and its bodies if they were kept.

        Raises:
            ObjectNotFoundError
        """
        found = self._storage.calls.get(id) if is_valid_id(id) else None
        if found is None:
            raise ObjectNotFoundError(f"The log has no call with the id '{id[:100]}'. Older calls are deleted.")
        row, bodies = found
        kept = None if bodies is None else {"request": bodies["request"], "answer": bodies["answer"]}
        return {**_to_call(row), "attempts": json.loads(row["attempts"]), "bodies": kept}

    def _times(self, span: Span) -> tuple[int, int]:
        """Return the start and the end of whole buckets, of which the last one has begun."""
        end = int(self._clock()) // span.bucket * span.bucket + span.bucket
        return end - span.seconds, end

    def _series(self, span: Span, start: int, end: int) -> JSON:
        """Return the values of each plot, one for each bucket. Averages are null in buckets without a call."""
        found = {row["bucket"]: row for row in self._storage.calls.sums(span.width, start, end, span.bucket)}
        times = range(start, end, span.bucket)
        figures = [_to_figures(found.get(at, {})) for at in times]
        return {"time": list(times), **{name: [each[name] for each in figures] for name in PLOTTED}}


def _by_model(rows: Iterable[Mapping[str, Any]]) -> list[JSON]:
    """Return the figures of each model, the one with the most calls first."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["model"], []).append(row)
    models = [{"model": model, **_to_figures(_add(own))} for model, own in groups.items()]
    return sorted(models, key=lambda model: -model["calls"])


def _add(rows: Iterable[Mapping[str, Any]]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for row in rows:
        sums.update({name: value for name, value in row.items() if isinstance(value, int)})
    return sums


def _to_figures(sums: Mapping[str, int]) -> JSON:
    """Return sums with averages and amounts in dollars."""
    return {
        **{name: sums.get(name, 0) for name in ("calls", "errors", "input_tokens", "output_tokens")},
        "cost": to_dollars(sums.get("cost_nano", 0)),
        "first_token_ms": _average(sums, "first_token_ms", "first_tokens"),
        "duration_ms": _average(sums, "duration_ms", "calls"),
    }


def _average(sums: Mapping[str, int], name: str, count: str) -> float | None:
    return round(sums[name] / sums[count], 1) if sums.get(count) else None


def _to_call(row: Mapping[str, Any]) -> JSON:
    cost = row["cost_nano"]
    values = {name: value for name, value in row.items() if name not in ("cost_nano", "attempts")}
    return {**values, "cost": None if cost is None else to_dollars(cost)}
