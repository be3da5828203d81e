"""Results of the chaos test, counted and rendered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .harness import CLIENTS, WORKERS, Call, Footprint


@dataclass(slots=True)
class Report:
    """Counts of a run. `problems` has a line for each call whose outcome its case does not allow."""

    calls: int
    seconds: float
    outcomes: Counter[str] = field(default_factory=Counter)
    by_case: dict[str, Counter[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    fallbacks: int = 0
    slowest_seconds: float = 0.0
    before: Footprint | None = None
    after: Footprint | None = None

    def add(self, calls: Iterable[Call]) -> None:
        """Count calls and record those with a wrong outcome as problems."""
        for call in calls:
            case, outcome = call.case, call.outcome
            self.outcomes[outcome] += 1
            self.by_case.setdefault(case.name, Counter())[f"{outcome} {call.detail}".strip()[:60]] += 1
            self.fallbacks += call.is_fallback
            self.slowest_seconds = max(self.slowest_seconds, round(call.seconds, 2))
            allowed = {"disconnected"} | (set() if case.must_fail else {"complete"})
            allowed |= {"error"} if case.may_fail[call.is_streamed] else set()
            if outcome not in allowed:
                kind = "streamed" if call.is_streamed else "not streamed"
                self.problems.append(f"{case.name}, {kind}: {outcome} {call.detail}")


def to_markdown(report: Report, machine: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the page."""
    yield f"# {report.calls:,} calls with a random fault each\n"
    yield f"{machine['cores']} cores of {machine['cpu']}, Python {machine['python']}."
    yield f"{WORKERS} workers, {CLIENTS} clients, {report.seconds:g} s.\n"
    yield "| | |\n| --- | --- |"
    yield from (f"| {outcome} | {count:,} |" for outcome, count in report.outcomes.most_common())
    yield f"| answered by a fallback | {report.fallbacks:,} |"
    yield f"| truncated, mixed up, repeated or malformed | {len(report.problems):,} |"
    yield f"| slowest answer | {report.slowest_seconds:g} s |"
    for name, footprint in (("before", report.before), ("after", report.after)):
        if footprint is not None:
            sizes = " and ".join(f"{size / 2**20:.1f} MiB" for size in footprint.memory_bytes)
            files = " and ".join(map(str, footprint.open_files))
            yield f"| {name}: memory (PSS), open files of the workers | {sizes}; {files} |"
            yield f"| {name}: requests open at the upstream | {footprint.upstream_requests} |"


def to_json(report: Report, machine: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return what is written as JSON."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": dict(machine),
        "seed": seed,
        "calls": report.calls,
        "seconds": report.seconds,
        "outcomes": dict(report.outcomes),
        "fallbacks": report.fallbacks,
        "slowest_seconds": report.slowest_seconds,
        "problems": report.problems,
        "before": report.before.to_json() if report.before else None,
        "after": report.after.to_json() if report.after else None,
        "by_case": {name: dict(counts) for name, counts in sorted(report.by_case.items())},
    }
