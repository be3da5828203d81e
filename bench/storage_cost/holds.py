"""Longest time for which the storage stops the other greenlets of a worker.

As the program `python -m bench.storage_cost.holds URL` it is the worker, which needs gevent's patches.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from operator import sub
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from bench.costs import COMPARED, MEASURED, Chart
from tests.support.postgres_server import running_postgres


class Hold(NamedTuple):
    """Milliseconds for which no stream runs. Other load on the machine adds to `wall`, and less to `cpu`."""

    wall: float
    cpu: float


PROCESSES: Final = 5
ROW_BYTES: Final = 16_000_000
REPEATS: Final = 10
TICK: Final = 0.0005


def measure_holds() -> Iterator[Chart]:
    """Yield a chart of the CPU times, and print a line for each database and access, the first use included."""
    holds: dict[str, Hold] = {}
    with tempfile.TemporaryDirectory() as folder, running_postgres() as postgres:
        for name, url in {"SQLite": f"sqlite:{Path(folder) / 'holds.db'}", "PostgreSQL": postgres.url}.items():
            results = [_run_worker(url) for _ in range(PROCESSES)]
            for access in results[0]:
                hold = Hold(*map(median, zip(*(result[access] for result in results), strict=True)))
                print(f"{name}, {access}: streams stop for {hold.wall:.1f} ms, {hold.cpu:.1f} ms of CPU", flush=True)
                holds[f"{name}, {access}"] = hold
    colours = {name: COMPARED if "PostgreSQL" in name else MEASURED for name in holds}
    title = "Longest stop of all streams of a worker (ms of CPU time, logarithmic)"
    yield Chart("storage-holds", title, {name: hold.cpu for name, hold in holds.items()}, colours)


def _run_worker(url: str) -> dict[str, Hold]:
    command = [sys.executable, "-m", "bench.storage_cost.holds", url]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {access: Hold(*map(float, times.split())) for access, _, times in (line.partition(": ") for line in lines)}


def run_worker(url: str) -> None:
    """Print the longest hold of each access, and of an idle process."""
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
        hold = _longest_hold(access)
        print(f"{name}: {hold.wall:.3f} {hold.cpu:.3f}")


def _longest_hold(access: Callable[[], object]) -> Hold:
    """Return the longest times between two turns of a greenlet that sleeps for `TICK` while `access` runs."""
    import gevent

    running = gevent.spawn(access)
    turns = [_clocks()]
    while not running.ready():
        time.sleep(TICK)
        turns.append(_clocks())
    running.get()
    return Hold(*(max(map(sub, clock[1:], clock)) for clock in zip(*turns, strict=True)))


def _clocks() -> tuple[float, float]:
    """Return the time and the CPU time of all threads of the process, in milliseconds."""
    return time.perf_counter() * 1000, time.process_time() * 1000


if __name__ == "__main__":
    from gevent.monkey import patch_all

    patch_all()
    run_worker(sys.argv[1])
