"""Longest time for which the storage stops the other greenlets of a worker.

As the program `python -m bench.storage_cost.holds URL` it is the worker, which needs gevent's patches.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Final

from tests.support.postgres_server import running_postgres

PROCESSES: Final = 5
ROW_BYTES: Final = 16_000_000
REPEATS: Final = 10
TICK: Final = 0.0005


def measure_holds() -> Iterator[str]:
    """Yield a line for each database and access, the first use of a process included."""
    with tempfile.TemporaryDirectory() as folder, running_postgres() as postgres:
        for name, url in {"SQLite": f"sqlite:{Path(folder) / 'holds.db'}", "PostgreSQL": postgres.url}.items():
            results = [_run_worker(url) for _ in range(PROCESSES)]
            for access in results[0]:
                yield f"{name}, {access}: streams stop for {median(result[access] for result in results):.1f} ms"


def _run_worker(url: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.storage_cost.holds", url]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {access: float(hold) for access, _, hold in (line.partition(": ") for line in lines)}


def run_worker(url: str) -> None:
    """Print the longest hold of each access in milliseconds, and of an idle process."""
    from openai_compat.storage import open_storage
    from openai_compat.storage.records import NewObject

    storage = open_storage(url, "", 0, 0)

    def write() -> None:
        for id in ids:
            storage.responses.create("me", NewObject(id, body, 1))

    ids = [f"{time.time_ns()}-{number}" for number in range(REPEATS)]
    body = "x" * ROW_BYTES
    accesses: dict[str, Callable[[], object]] = {
        "idle": lambda: time.sleep(0.5),
        "first use": storage.check,
        "16 MB written": write,
        "16 MB read": lambda: [storage.responses.get("me", id) for id in ids],
        "deleted": lambda: [storage.responses.delete("me", id) for id in ids],
    }
    for name, access in accesses.items():
        print(f"{name}: {_longest_hold(access) * 1000:.3f}")


def _longest_hold(access: Callable[[], object]) -> float:
    """Return the longest time between two turns of a greenlet that sleeps for `TICK` while `access` runs."""
    import gevent

    running = gevent.spawn(access)
    longest, last = 0.0, time.perf_counter()
    while not running.ready():
        time.sleep(TICK)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    running.get()
    return longest


if __name__ == "__main__":
    from gevent.monkey import patch_all

    patch_all()
    run_worker(sys.argv[1])
