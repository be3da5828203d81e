"""Command line of the chaos test, `make chaos ARGS=...`.

The mock upstream injects every fault of the table in docs/guides/routing.md, and two workers route the calls. Each
call has a prompt of its own, so that an answer that is truncated, mixed up with another or repeated differs from the
expected one. In the end no request may be open at the upstream, and the workers must have the memory and the open
files that they had after a warm-up.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.machine import describe_hardware
from bench.paths import RESULTS

from .harness import ChaosServers
from .report import Report, to_json, to_markdown

WARM_UP: Final = 4000
"""Calls after which the allocator has what it needs for this many concurrent calls."""
IDLE_TIMEOUT: Final = 70
"""Seconds after which the server has closed its idle connections to the upstream."""
SHOWN_PROBLEMS: Final = 20


def measure(count: int, seed: int, folder: Path, warm_up: int) -> Report:
    """Warm the servers up, make the calls, and take the footprint before and after them while the server is idle."""
    with ChaosServers(folder) as servers:
        first = servers.run(warm_up, seed)
        before = servers.idle_footprint(IDLE_TIMEOUT)
        started = time.monotonic()
        calls = servers.run(count, seed, first=warm_up)
        report = Report(count, round(time.monotonic() - started, 1))
        report.before, report.after = before, servers.idle_footprint(IDLE_TIMEOUT)
    Report(warm_up, 0.0, problems=report.problems).add(first)
    report.add(calls)
    return report


def main() -> int:
    """Run the test, write and print its report, and return 1 if there were problems."""
    parser = argparse.ArgumentParser(prog="make chaos ARGS=", description="Make calls to models with random faults.")
    parser.add_argument("--calls", type=int, default=10_000, help="calls that are counted (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=WARM_UP, help="calls before them (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=6, help="of the random choices (default: %(default)s)")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    machine = describe_hardware()
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        report = measure(arguments.calls, arguments.seed, Path(folder), arguments.warm_up)
    page = "\n".join(to_markdown(report, machine))
    print(page, *report.problems[:SHOWN_PROBLEMS], sep="\n")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "chaos.md").write_text(page + "\n")
    (RESULTS / "chaos.json").write_text(json.dumps(to_json(report, machine, arguments.seed), indent=2) + "\n")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
