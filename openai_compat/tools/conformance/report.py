"""Conformance report as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

from .client import Target
from .runner import Outcome, Result

MARKS: Final[dict[Outcome, str]] = {"passed": "✓", "failed": "✗", "skipped": "?"}
FORMER_OUTCOMES: Final[dict[str, str]] = {"passed": "right", "failed": "wrong", "skipped": "not asked"}


def count(results: Sequence[Result], outcome: Outcome) -> int:
    return sum(result.outcome == outcome for result in results)


def to_text(target: Target, results: Sequence[Result]) -> str:
    """Return the results by section, with details of failed and skipped checks, and a summary line."""
    lines = [f"{target.base_url}, model {target.model}"]
    for section, group in groupby(results, key=lambda result: result.check.section):
        section_results = list(group)
        passed, failed = count(section_results, "passed"), count(section_results, "failed")
        lines += ["", f"{section}: {passed} of {passed + failed}"]
        for result in section_results:
            lines.append(f"  {MARKS[result.outcome]} {result.check.title}")
            if result.outcome == "failed":
                lines += [f"      received: {result.detail}", f"      why it matters: {result.check.why}"]
            elif result.outcome == "skipped":
                lines.append(f"      skipped: {result.detail}")
    passed, failed = count(results, "passed"), count(results, "failed")
    return "\n".join([*lines, "", f"{passed} of {passed + failed} passed, {count(results, 'skipped')} skipped"])


def to_json(target: Target, results: Sequence[Result]) -> dict[str, Any]:
    """Return the counts and every result, and repeat them under their former names for older scripts."""
    passed, failed, skipped = (count(results, outcome) for outcome in MARKS)
    checks = [
        {
            "name": result.check.name,
            "section": result.check.section,
            "title": result.check.title,
            "why": result.check.why,
            "outcome": result.outcome,
            "detail": result.detail,
            "seconds": round(result.seconds, 3),
        }
        for result in results
    ]
    return {
        "url": str(target.base_url),
        "model": target.model,
        "passed": passed,
        "failed": failed,
        "skipped": skipped,
        "checks": checks,
        "right": passed,
        "wrong": failed,
        "not_asked": skipped,
        "questions": [{**check, "outcome": FORMER_OUTCOMES[str(check["outcome"])]} for check in checks],
    }
