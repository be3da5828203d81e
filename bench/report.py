"""Results as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from .cases import Plan
from .run import DIRECT

Result = dict[str, Any]


def to_result(
    name: str,
    machine: Mapping[str, Any],
    plan: Plan,
    known: Mapping[str, Mapping[str, str]],
    figures: Mapping[str, Mapping[str, Any]],
    faults: Mapping[str, list[str]],
) -> Result:
    return {
        "name": name,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine,
        "plan": asdict(plan),
        "systems": known,
        "figures": figures,
        "faults": faults,
    }


def median(result: Result, system: str, figure: str) -> float | None:
    found = result["figures"].get(system, {}).get(figure)
    return found["median"] if found else None


def to_markdown(result: Result) -> str:
    systems = [DIRECT, *result["systems"]]
    figures = sorted({figure for system in result["figures"].values() for figure in system})
    lines = ["| | " + " | ".join(systems) + " |", "|---|" + "---|" * len(systems)]
    for figure in figures:
        values = [median(result, system, figure) for system in systems]
        lines.append(f"| {figure} | " + " | ".join("" if value is None else f"{value:,.2f}" for value in values) + " |")
    return "\n".join(lines) + "\n"
