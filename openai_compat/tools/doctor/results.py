"""Results of the checks, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from .target import Target

Outcome = Literal["passed", "failed", "skipped"]
MARKS: Final[dict[Outcome, str]] = {"passed": "✓", "failed": "✗", "skipped": "?"}
FORMER_OUTCOMES: Final[dict[Outcome, str]] = {"passed": "good", "failed": "bad", "skipped": "not checked"}


@dataclass(frozen=True)
class CheckResult:
    """Result of one check. `fix` has the lines of configuration to change, of nginx, this server or others."""

    check: str
    outcome: Outcome
    message: str
    fix: tuple[str, ...] = ()


def passed(check: str, message: str) -> CheckResult:
    return CheckResult(check, "passed", message)


def failed(check: str, message: str, *fix: str) -> CheckResult:
    return CheckResult(check, "failed", message, fix)


def skipped(check: str, message: str) -> CheckResult:
    return CheckResult(check, "skipped", message)


def to_text(target: Target, results: Sequence[CheckResult]) -> str:
    """Return a line for each result, the fixes below failed ones, and a summary line."""
    lines = [str(target.base_url), ""]
    for result in results:
        lines.append(f"  {MARKS[result.outcome]} {result.check}: {result.message}")
        lines += [f"      fix: {line}" for line in result.fix]
    failures = sum(result.outcome == "failed" for result in results)
    return "\n".join([*lines, "", f"{failures} to fix" if failures else "nothing to fix"])


def to_json(target: Target, results: Sequence[CheckResult]) -> dict[str, Any]:
    """Return the server's URL and all results. `findings` repeats them under their former names, for older scripts."""
    findings = [
        {
            "check": result.check,
            "outcome": FORMER_OUTCOMES[result.outcome],
            "says": result.message,
            "change": result.fix,
        }
        for result in results
    ]
    return {"url": str(target.base_url), "results": [asdict(result) for result in results], "findings": findings}
