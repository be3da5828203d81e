"""What a check has found, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from .target import Target

Outcome = Literal["good", "bad", "not checked"]
MARKS: Final = {"good": "✓", "bad": "✗", "not checked": "?"}


@dataclass(frozen=True)
class CheckResult:
    """`says` is what was seen; `change` has the lines to change, of nginx or of this server's configuration."""

    check: str
    outcome: Outcome
    says: str
    change: tuple[str, ...] = ()


def good(check: str, says: str) -> CheckResult:
    return CheckResult(check, "good", says)


def bad(check: str, says: str, *change: str) -> CheckResult:
    return CheckResult(check, "bad", says, change)


def not_checked(check: str, says: str) -> CheckResult:
    return CheckResult(check, "not checked", says)


def to_text(patient: Target, findings: Sequence[CheckResult]) -> str:
    """A line for each, and below what is bad the lines to change."""
    lines = [str(patient.address), ""]
    for finding in findings:
        lines.append(f"  {MARKS[finding.outcome]} {finding.check}: {finding.says}")
        lines += [f"      change: {line}" for line in finding.change]
    bads = sum(finding.outcome == "bad" for finding in findings)
    return "\n".join([*lines, "", f"{bads} to change" if bads else "nothing to change"])


def to_json(patient: Target, findings: Sequence[CheckResult]) -> dict[str, Any]:
    return {"url": str(patient.address), "findings": [asdict(finding) for finding in findings]}
