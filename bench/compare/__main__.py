"""The command line of the benchmark: `python -m bench`, or `make bench ARGS=...`."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from bench.machine import describe_machine
from bench.paths import BUILD, RESULTS
from bench.systems import SYSTEMS

from . import report
from .plots import draw_plots
from .run import measure, prepare, to_medians
from .scenarios import GROUPS, QUICK, Plan

QUICK_SYSTEMS = ["nginx", "ours", "plain"]


def main() -> None:
    arguments = _parse()
    if arguments.render:
        result = json.loads(arguments.render.read_text())
        write(result, arguments.render.parent, arguments.render.stem)
        return
    plan = _plan(arguments)
    names = arguments.only or (QUICK_SYSTEMS if arguments.quick else list(SYSTEMS))
    systems, known = prepare([name for name in SYSTEMS if name in names])
    machine = describe_machine()
    samples, faults = measure(plan, systems)
    result = report.to_result(arguments.name, machine, plan, known, to_medians(samples), faults)
    is_whole = not arguments.quick and not arguments.only and not arguments.group
    folder = RESULTS if is_whole else BUILD
    write(result, folder, f"{result['date']}-{arguments.name}" if is_whole else "partial")


def write(result: report.Result, folder: Path, stem: str) -> None:
    """The figures, and what is made of them: tables and plots."""
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
    parser = argparse.ArgumentParser(prog="make bench ARGS=", description="Measures this server beside others.")
    parser.add_argument("--quick", action="store_true", help="two minutes: no LiteLLM, no Portkey, fewer cases")
    parser.add_argument("--only", action="append", choices=list(SYSTEMS), metavar="SYSTEM", help="(again for more)")
    parser.add_argument("--group", action="append", choices=list(GROUPS), metavar="GROUP", help="(again for more)")
    parser.add_argument("--repeats", type=int, help="how often everything is measured")
    parser.add_argument("--seconds", type=float, help="length of one load")
    parser.add_argument("--name", default="run", help="names the file of results")
    parser.add_argument("--render", type=Path, metavar="JSON", help="draws tables and plots of an earlier run anew")
    return parser.parse_args()


if __name__ == "__main__":
    main()
