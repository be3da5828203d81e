"""One run: every system through every group, repeated, the systems taking turns."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.processes import Cores
from bench.systems import SYSTEMS, Live, StartError, System, launch, launch_upstream

from .competitors import Absent
from .load import LoadError
from .scenarios import GROUPS, Bench, Figures, Plan

Samples = dict[str, dict[str, list[float]]]
DIRECT = "direct"


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def prepare(names: list[str]) -> tuple[list[System], dict[str, dict[str, str]]]:
    """The systems that can be measured, and what is known of each: its version, or why it is absent."""
    present: list[System] = []
    known: dict[str, dict[str, str]] = {}
    for name in names:
        system = SYSTEMS[name]
        known[name] = {"title": system.title}
        try:
            known[name]["version"] = system.prepare()
            present.append(system)
        except Absent as reason:
            known[name]["absent"] = str(reason)
            say(f"{system.title} is absent: {reason}")
    return present, known


def measure(plan: Plan, systems: list[System]) -> tuple[Samples, dict[str, list[str]]]:
    """The samples of every figure, and what went wrong, by system."""
    samples: Samples = defaultdict(lambda: defaultdict(list))
    faults: dict[str, list[str]] = defaultdict(list)
    cores = Cores()
    cores.pin_self()
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        upstream = launch_upstream(Path(folder) / "upstream")
        bench = Bench(plan, cores, upstream)
        try:
            for repeat in range(plan.repeats):
                if repeat:  # what tens of thousands of requests leave behind is looked at once
                    bench.plan = replace(plan, total_requests=0)
                for group in plan.groups:
                    for system in [None, *systems]:
                        name = system.name if system else DIRECT
                        say(f"{repeat + 1}/{plan.repeats} {group}: {name}")
                        try:
                            found = _measure_one(bench, group, system, Path(folder) / f"{name}-{group}-{repeat}")
                        except (StartError, LoadError) as error:
                            faults[name].append(f"{group}: {error}")
                            say(f"  {error}")
                            continue
                        for figure, value in found.items():
                            samples[name][figure].append(value)
        finally:
            upstream.running.stop()
    return samples, faults


def _measure_one(bench: Bench, group: str, system: System | None, folder: Path) -> Figures:
    if system is None:
        return GROUPS[group](bench, bench.upstream)
    live: Live = launch(system, folder, bench.upstream.site.port, bench.cores)
    try:
        return GROUPS[group](bench, live)
    finally:
        live.running.stop()


def to_medians(samples: Samples) -> dict[str, dict[str, Any]]:
    return {
        system: {
            figure: {"median": round(statistics.median(values), 4), "samples": [round(value, 4) for value in values]}
            for figure, values in sorted(figures.items())
        }
        for system, figures in samples.items()
    }
