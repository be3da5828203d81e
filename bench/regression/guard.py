"""Regression check of the hot path, `make guard`.

The check counts the instructions that this server executes for a chat and for an event of a stream, from reading the
request to writing the answer. It divides them by what the baseline proxy executes for the same in the same run.
callgrind counts them, so that the speed and the load of the machine do not matter, and the ratio cancels most of what
differs between builds of Python. `guard.json` holds the accepted ratios. `--accept` writes new ones.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from bench.paths import ROOT
from bench.processes import find_program
from bench.systems import Site, baseline_command, launch_upstream, our_command
from bench.workloads import EVENTS

BASELINE: Final = Path(__file__).with_name("guard.json")
MAX_GROWTH: Final = 1.05
TIMEOUT: Final = 300
COUNTS: Final = {"chat": 50, "stream": 2}
"""Requests that are counted, enough to even out rare work such as a garbage collection."""
UNITS_PER_REQUEST: Final = {"chat": 1, "stream": EVENTS}
COMMANDS: Final = {"ours": our_command, "baseline": baseline_command}

Figures = dict[str, float]


class GuardError(Exception):
    """The instructions of a system could not be counted."""


def gunicorn_arguments(name: str) -> list[str]:
    """Return the arguments with which gunicorn runs a system."""
    if name == "ours":
        return ["--config", str(ROOT / "gunicorn.conf.py"), "openai_compat:create_app()"]
    return ["--worker-class", "gevent", "--no-control-socket", "bench.baseline_proxy:app"]


def count_instructions(kind: str, name: str, folder: Path, upstream_port: int) -> float:
    """Return the instructions of one chat, or of one event with its share of the stream's start and end.

    Raises:
        GuardError: the program failed, or callgrind counted nothing.
    """
    environ = COMMANDS[name](Site(folder, 0, upstream_port)).environ
    output = folder / f"{name}-{kind}.callgrind"
    valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={output}"]
    python = [sys.executable, "-m", "bench.regression.hot_path", kind, str(COUNTS[kind])]
    done = subprocess.run(
        [*valgrind, *python, "--", *gunicorn_arguments(name)],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", **environ},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    total = re.search(r"^totals: (\d+)$", output.read_text(), re.MULTILINE) if output.exists() else None
    if done.returncode or total is None or not int(total[1]):
        raise GuardError(f"{name}, {kind}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return int(total[1]) / COUNTS[kind] / UNITS_PER_REQUEST[kind]


def measure() -> dict[str, Figures]:
    """Return instructions by kind of request and system.

    Raises:
        GuardError: one of them could not be counted.
    """
    pairs = [(kind, name) for kind in COUNTS for name in COMMANDS]
    with tempfile.TemporaryDirectory(prefix="guard-", ignore_cleanup_errors=True) as folder:
        upstream = launch_upstream(Path(folder) / "upstream")
        try:
            with ThreadPoolExecutor(2) as pool:
                tasks = [pool.submit(count_instructions, *pair, Path(folder), upstream.site.port) for pair in pairs]
                found = [task.result() for task in tasks]
        finally:
            upstream.processes.stop()
    counted: dict[str, Figures] = {kind: {} for kind in COUNTS}
    for (kind, name), number in zip(pairs, found, strict=True):
        counted[kind][name] = number
    return counted


def to_ratios(counted: Mapping[str, Figures]) -> Figures:
    """Return this server's instructions divided by the baseline proxy's, by kind of request."""
    return {kind: round(figures["ours"] / figures["baseline"], 4) for kind, figures in counted.items()}


def find_regressions(ratios: Figures, accepted: Figures) -> list[str]:
    """Return a message for each ratio that exceeds the accepted one by more than `MAX_GROWTH` allows."""
    return [
        f"{kind}: {ratios[kind]:.3f} times the instructions of the baseline proxy, {ratios[kind] / limit - 1:+.0%} "
        f"against the {limit:.3f} in bench/regression/guard.json (allowed: {MAX_GROWTH - 1:+.0%})"
        for kind, limit in accepted.items()
        if ratios[kind] > limit * MAX_GROWTH
    ]


def main() -> int:
    """Count, print the figures, and return 1 if the hot path has grown."""
    parser = argparse.ArgumentParser(prog="make guard ARGS=", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--accept", action="store_true", help="write the measured ratios as the accepted ones")
    arguments = parser.parse_args()
    if find_program("valgrind") is None:
        sys.exit("valgrind is not installed (Debian: apt install valgrind)")
    counted = measure()
    ratios = to_ratios(counted)
    for kind, figures in counted.items():
        print(
            f"{kind}: {figures['ours']:,.0f} instructions, baseline proxy {figures['baseline']:,.0f}, "
            f"ratio {ratios[kind]}"
        )
    if arguments.accept:
        BASELINE.write_text(json.dumps(ratios, indent=2) + "\n")
        return 0
    regressions = find_regressions(ratios, json.loads(BASELINE.read_text()))
    within = f"Within {MAX_GROWTH - 1:.0%} of the baseline."
    print("\n".join(["The hot path has grown.", *regressions] if regressions else [within]))
    return 1 if regressions else 0


if __name__ == "__main__":
    sys.exit(main())
