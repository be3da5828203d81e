"""Fails when the hot path has grown: `python -m bench.regression.guard`.

What is judged is how many instructions this server executes for a chat and for an event of a stream, from reading the
request to writing the answer, over what thirty lines of Flask and `requests` (plain_proxy.py) execute for the same in
the same run. callgrind counts them, so that neither a slow machine nor a busy one matters, and the ratio evens out
what differs between builds of Python. `guard.json` holds the ratios of the committed state; when they have changed for
a good reason, `--accept` writes them anew.
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

from bench.compare.competitors import find_program
from bench.paths import ROOT
from bench.systems import Site, launch_upstream, start_ours, start_plain
from bench.workloads import EVENTS

BASELINE: Final = Path(__file__).with_name("guard.json")
GROWTH: Final = 1.15
LIMIT_SECONDS: Final = 300
COUNTS: Final = {"chat": 50, "stream": 2}
"""How many of each are counted: enough that what happens once in a while, like a collection of garbage, evens out."""
PER: Final = {"chat": 1, "stream": EVENTS}

Figures = dict[str, float]


class GuardError(Exception):
    """Nothing could be counted."""


def gunicorn_arguments(name: str) -> list[str]:
    if name == "ours":
        return ["--config", str(ROOT / "gunicorn.conf.py"), "openai_compat:create_app()"]
    return ["--worker-class", "gevent", "--no-control-socket", "bench.baseline_proxy:app"]


def instructions(kind: str, name: str, folder: Path, upstream_port: int) -> float:
    """For one request, or for one event with its share of the stream's beginning and end."""
    site = Site(folder, 0, upstream_port)
    environ = (start_ours if name == "ours" else start_plain)(site).environ
    output = folder / f"{name}-{kind}.callgrind"
    valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={output}"]
    python = [
        sys.executable,
        "-m",
        "bench.regression.hot_path",
        kind,
        str(COUNTS[kind]),
        "--",
        *gunicorn_arguments(name),
    ]
    done = subprocess.run(
        [*valgrind, *python],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", **environ},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    found = re.search(r"^totals: (\d+)$", output.read_text(), re.MULTILINE) if output.exists() else None
    if done.returncode or found is None or not int(found[1]):
        raise GuardError(f"{name}, {kind}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return int(found[1]) / COUNTS[kind] / PER[kind]


def take() -> dict[str, Figures]:
    """Instructions by kind and system."""
    pairs = [(kind, name) for kind in COUNTS for name in ("ours", "plain")]
    with tempfile.TemporaryDirectory(prefix="guard-", ignore_cleanup_errors=True) as folder:
        upstream = launch_upstream(Path(folder) / "upstream")
        try:
            with ThreadPoolExecutor(2) as pool:
                tasks = [pool.submit(instructions, *pair, Path(folder), upstream.site.port) for pair in pairs]
                found = [task.result() for task in tasks]
        finally:
            upstream.running.stop()
    counted: dict[str, Figures] = {kind: {} for kind in COUNTS}
    for (kind, name), number in zip(pairs, found, strict=True):
        counted[kind][name] = number
    return counted


def to_ratios(counted: Mapping[str, Figures]) -> Figures:
    return {kind: round(figures["ours"] / figures["plain"], 4) for kind, figures in counted.items()}


def judge(ratios: Figures, baseline: Figures) -> list[str]:
    """A sentence for each path that has grown too far."""
    return [
        f"{kind}: {ratios[kind]:.3f} of what the plain proxy executes, {ratios[kind] / accepted - 1:+.0%} against the "
        f"{accepted:.3f} of bench/guard.json; {GROWTH - 1:.0%} more is let pass"
        for kind, accepted in baseline.items()
        if ratios[kind] > accepted * GROWTH
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.regression.guard ARGS=", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--accept", action="store_true", help="write what is counted as the new baseline")
    arguments = parser.parse_args()
    if find_program("valgrind") is None:
        sys.exit("valgrind is not installed (Debian: apt install valgrind)")
    counted = take()
    ratios = to_ratios(counted)
    for kind, figures in counted.items():
        print(f"{kind}: {figures['ours']:,.0f} instructions, the plain proxy {figures['plain']:,.0f}: {ratios[kind]}")
    if arguments.accept:
        BASELINE.write_text(json.dumps(ratios, indent=2) + "\n")
        return 0
    complaints = judge(ratios, json.loads(BASELINE.read_text()))
    print("\n".join(["The hot path has grown.", *complaints] if complaints else ["Within 15 % of the baseline."]))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
