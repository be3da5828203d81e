"""Command line of the comparison, `make bench ARGS=...`."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from bench.machine import describe_machine
from bench.paths import BUILD, RESULTS

from . import report
from .competitors import SYSTEMS
from .plots import draw_plots
from .run import measure, prepare, to_medians
from .scenarios import GROUPS, QUICK, Plan

QUICK_SYSTEMS = ["nginx", "ours", "plain"]


def main() -> None:
    """Measure and write the results, or render those of an earlier run.

    A complete run is written to `bench/results/`, a partial one to `bench/.build/`.
    """
    arguments = _parse()
    if arguments.render:
        result = json.loads(arguments.render.read_text())
        write(result, arguments.render.parent, arguments.render.stem)
        return
    plan = _plan(arguments)
    names = arguments.only or (QUICK_SYSTEMS if arguments.quick else list(SYSTEMS))
    systems, known = prepare([name for name in SYSTEMS if name in names])
    machine = describe_machine()
    samples, failures = measure(plan, systems)
    result = report.to_result(arguments.name, machine, plan, known, to_medians(samples), failures)
    is_complete = not arguments.quick and not arguments.only and not arguments.group
    folder = RESULTS if is_complete else BUILD
    write(result, folder, f"{result['date']}-{arguments.name}" if is_complete else "partial")


def write(result: report.Result, folder: Path, stem: str) -> None:
    """Write the figures as JSON and their tables and plots, and print the tables."""
    folder.mkdir(exist_ok=True)
    (folder / f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n")
    text = report.to_markdown(result)
    (folder / "latest.md").write_text(text)
    draw_plots(result, folder)
    print(text)


def _plan(arguments: argparse.Namespace) -> Plan:
    plan = QUICK if arguments.quick else Plan()
    if arguments.group:
        plan = replace(plan, groups=tuple(arguments.group))
    if arguments.repeats:
        plan = replace(plan, repeats=arguments.repeats)
    if arguments.seconds:
        plan = replace(plan, seconds=arguments.seconds)
    return plan


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=", description="Measure this server beside others.")
    parser.add_argument("--quick", action="store_true", help="about three minutes, without LiteLLM and Portkey")
    parser.add_argument("--only", action="append", choices=list(SYSTEMS), metavar="SYSTEM", help="may be repeated")
    parser.add_argument("--group", action="append", choices=list(GROUPS), metavar="GROUP", help="may be repeated")
    parser.add_argument("--repeats", type=int, help="rounds of measurements (default: 3)")
    parser.add_argument("--seconds", type=float, help="duration of one load (default: 3)")
    parser.add_argument("--name", default="run", help="part of the name of the results file (default: %(default)s)")
    parser.add_argument("--render", type=Path, metavar="JSON", help="render tables and plots of an earlier run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
