"""What the answers add up to, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

from .client import Target
from .runner import Result

MARKS: Final = {"right": "✓", "wrong": "✗", "not asked": "?"}


def count(results: Sequence[Result], outcome: str) -> int:
    return sum(result.outcome == outcome for result in results)


def to_text(subject: Target, results: Sequence[Result]) -> str:
    """A table by section, then what was wrong, then the sum."""
    lines = [f"{subject.address}, model {subject.model}"]
    for section, group in groupby(results, key=lambda result: result.question.section):
        asked = list(group)
        wrong = count(asked, "wrong")
        lines += ["", f"{section}: {count(asked, 'right')} of {count(asked, 'right') + wrong}"]
        for result in asked:
            lines.append(f"  {MARKS[result.outcome]} {result.question.title}")
            if result.outcome == "wrong":
                lines += [f"      came: {result.detail}", f"      why it matters: {result.question.why}"]
            elif result.outcome == "not asked":
                lines.append(f"      {result.detail}")
    right, wrong = count(results, "right"), count(results, "wrong")
    return "\n".join([*lines, "", f"{right} of {right + wrong} right, {count(results, 'not asked')} not asked"])


def to_json(subject: Target, results: Sequence[Result]) -> dict[str, Any]:
    return {
        "url": str(subject.address),
        "model": subject.model,
        "right": count(results, "right"),
        "wrong": count(results, "wrong"),
        "not_asked": count(results, "not asked"),
        "questions": [
            {
                "name": result.question.name,
                "section": result.question.section,
                "title": result.question.title,
                "why": result.question.why,
                "outcome": result.outcome,
                "detail": result.detail,
                "seconds": round(result.seconds, 3),
            }
            for result in results
        ],
    }
