"""One run of the comparison. The systems take turns through every group, repeatedly."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import defaultdict
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from bench.processes import Cores
from bench.systems import StartError, System, launch, launch_upstream

from .competitors import SYSTEMS, NotInstalled
from .load import LoadError
from .scenarios import GROUPS, Bench, Figures, Plan

Samples = dict[str, dict[str, list[float]]]
DIRECT = "direct"
"""Name under which the upstream itself is measured."""


def log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def prepare(names: list[str]) -> tuple[list[System], dict[str, dict[str, str]]]:
    """Return the systems that can be measured, and for each name its title with its version or why it is absent."""
    present: list[System] = []
    known: dict[str, dict[str, str]] = {}
    for name in names:
        system = SYSTEMS[name]
        known[name] = {"title": system.title}
        try:
            known[name]["version"] = system.prepare()
            present.append(system)
        except NotInstalled as reason:
            known[name]["absent"] = str(reason)
            log(f"{system.title} is absent: {reason}")
    return present, known


def measure(plan: Plan, systems: list[System]) -> tuple[Samples, dict[str, list[str]]]:
    """Return the samples of every figure and the failures, both by system."""
    samples: Samples = defaultdict(lambda: defaultdict(list))
    failures: dict[str, list[str]] = defaultdict(list)
    cores = Cores()
    cores.pin_self()
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        upstream = launch_upstream(Path(folder) / "upstream")
        bench = Bench(plan, cores, upstream)
        try:
            for repeat, group, system in product(range(plan.repeats), plan.groups, [None, *systems]):
                if repeat:  # memory after tens of thousands of requests is measured once
                    bench.plan = replace(plan, total_requests=0)
                name = system.name if system else DIRECT
                log(f"{repeat + 1}/{plan.repeats} {group}: {name}")
                try:
                    found = _measure_group(bench, group, system, Path(folder) / f"{name}-{group}-{repeat}")
                except (StartError, LoadError) as error:
                    failures[name].append(f"{group}: {error}")
                    log(f"  {error}")
                    continue
                for figure, value in found.items():
                    samples[name][figure].append(value)
        finally:
            upstream.processes.stop()
    return samples, failures


def _measure_group(bench: Bench, group: str, system: System | None, folder: Path) -> Figures:
    if system is None:
        return GROUPS[group](bench, bench.upstream)
    target = launch(system, folder, bench.upstream.site.port, bench.cores)
    try:
        return GROUPS[group](bench, target)
    finally:
        target.processes.stop()


def to_medians(samples: Samples) -> dict[str, dict[str, Any]]:
    """Return the median and the samples of every figure by system."""
    return {
        system: {
            figure: {"median": round(statistics.median(values), 4), "samples": [round(value, 4) for value in values]}
            for figure, values in sorted(figures.items())
        }
        for system, figures in samples.items()
    }
