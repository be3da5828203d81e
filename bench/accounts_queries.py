"""Duration of the administration queries with 1,000,000 calls of 10,000 keys, `python -m bench.accounts_queries`.

It takes about two minutes and writes `results/accounts-queries.md`. As `python -m bench.accounts_queries FOLDER` it is
the worker, which runs the queries in a greenlet and measures for how long they stop the others.
"""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.machine import describe_hardware
from bench.paths import RESULTS

CALLS: Final = 1_000_000
KEYS: Final = 10_000
PROJECTS: Final = 100
DAYS: Final = 90
DAY: Final = 86_400
END: Final = 1_767_225_600
MODELS: Final = ("gpt-4o", "gpt-4o-mini", "o3", "llama3.2", "embed")
SUMS: Final = ", ".join(f"sum({name}_tokens)" for name in ("input", "cached", "cache_write", "output", "reasoning"))
REPEATS: Final = 5
TICK: Final = 0.001
GOAL_MS: Final = 200


def main() -> None:
    """Fill a database, run the queries in a worker, and write their durations."""
    with tempfile.TemporaryDirectory() as folder:
        _fill(folder)
        command = [sys.executable, "-m", "bench.accounts_queries", folder]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    machine = describe_hardware()
    head = [
        f"# Administration queries, {CALLS:,} calls of {KEYS:,} keys",
        "",
        f"{machine['cores']} cores of {machine['cpu']}, Python {machine['python']}. SQLite, medians of {REPEATS}.",
        "",
        "| query | ms | CPU ms | other greenlets wait at most, ms |",
        "| --- | --- | --- | --- |",
    ]
    text = "\n".join([*head, *output.splitlines()]) + "\n"
    (RESULTS / "accounts-queries.md").write_text(text)
    print(text)


def _fill(folder: str) -> None:
    """Make the database with its own schema, and fill it by the driver, which is fast."""
    from openai_compat.storage import open_storage

    storage = open_storage(None, folder, 0, 0)
    storage.accounts.page("key", None, None, 1)
    storage.close()
    database = sqlite3.connect(Path(folder) / "openai-compat.db")
    database.execute("PRAGMA synchronous = OFF")
    _insert(database, "accounts", _accounts())
    _insert(database, "secrets", ({"digest": f"{n:064x}", "account_id": f"key_{n}"} for n in range(KEYS)))
    _insert(database, "usage", _calls())
    for table, seconds, key in (("usage_hours", 3600, "key_id, "), ("usage_days", DAY, "")):
        groups = f"organization_id, project_id, {key}endpoint, model"
        counts = f"count(*), sum(status >= 400), {SUMS}, sum(cost_nano)"
        database.execute(
            f"INSERT INTO {table} SELECT at - at % {seconds}, {groups}, {counts} "  # noqa: S608
            f"FROM usage GROUP BY at - at % {seconds}, {groups}"
        )
    database.commit()
    database.close()


def _insert(database: sqlite3.Connection, table: str, rows: Iterator[dict[str, Any]]) -> None:
    first = next(rows)
    names = ", ".join(first)
    values = ", ".join(f":{name}" for name in first)
    statement = f"INSERT INTO {table} ({names}) VALUES ({values})"  # noqa: S608 - constants of this module
    database.executemany(statement, [first])
    database.executemany(statement, rows)


def _accounts() -> Iterator[dict[str, Any]]:
    parents: list[tuple[str, str, str | None]] = [("org-default", "organization", None)]
    parents += [(f"proj_{number}", "project", "org-default") for number in range(PROJECTS)]
    keys = [(f"key_{number}", "key", f"proj_{number % PROJECTS}") for number in range(KEYS)]
    body = '{"policy": {}, "metadata": {}, "tags": []}'
    for id, kind, parent in [*parents, *keys]:
        yield {
            "id": id, "kind": kind, "parent_id": parent, "name": id, "created_at": END, "is_enabled": True,
            "source": "api", "hint": "sk-oc-abc...xyz", "body": body,
        }  # fmt: skip


def _calls() -> Iterator[dict[str, Any]]:
    """Yield the calls in the order of time. A few keys make most of them."""
    generator = random.Random(7)
    for number in range(CALLS):
        key = int(KEYS * generator.random() ** 3)
        model = generator.choice(MODELS)
        yield {
            "id": f"c{number}", "at": END - DAYS * DAY + number * DAYS * DAY // CALLS, "organization_id": "org-default",
            "project_id": f"proj_{key % PROJECTS}", "key_id": f"key_{key}", "end_user": f"user {key % 500}",
            "endpoint": "embeddings" if model == "embed" else "chat", "model": model, "served_by": model, "status": 200,
            "attempts": 1, "input_tokens": 1000, "cached_tokens": 100, "cache_write_tokens": 0, "output_tokens": 200,
            "reasoning_tokens": 0, "is_estimated": False, "cost_nano": 4_500_000, "duration_ms": 900,
            "request_id": f"req_{number}",
        }  # fmt: skip


def run_worker(folder: str) -> None:
    """Print a row of the table for each query."""
    from openai_compat.storage import open_storage

    storage = open_storage(None, folder, 0, 0)
    for name, query in _queries(storage).items():
        query()
        durations, cpu, holds = zip(*(_measure(query) for _ in range(REPEATS)), strict=True)
        late = " (over the goal)" if median(durations) > GOAL_MS else ""
        print(f"| {name} | {median(durations):.1f}{late} | {median(cpu):.1f} | {max(holds):.1f} |")


def _queries(storage: Any) -> dict[str, Callable[[], object]]:
    from openai_compat.accounts.usage_report import ReportRequest, UsageReports

    reports = UsageReports(storage)

    def usage(days: int, width: str, *group_by: str, **filters: str) -> Callable[[], object]:
        limit = days if width == "1d" else days * 24 if width == "1h" else days * 1440
        wanted = {name: (value,) for name, value in filters.items()}
        request = ReportRequest("completions", END - days * DAY, END, width, limit, group_by, wanted)
        return lambda: reports.page(request)

    def costs(days: int, *group_by: str) -> Callable[[], object]:
        request = ReportRequest("costs", END - days * DAY, END, "1d", days, group_by)
        return lambda: reports.page(request)

    return {
        "the key of a call, with its parents": lambda: storage.accounts.find_with_parents(f"{KEYS - 7:064x}"),
        "100 keys of a project, the last page": lambda: storage.accounts.page("key", "proj_7", "key_5007", 100),
        "100 projects": lambda: storage.accounts.page("project", None, None, 100),
        "costs of 7 days": costs(7),
        "costs of 31 days by project": costs(31, "project_id"),
        "costs of 31 days by model": costs(31, "line_item"),
        "usage of 7 days by model": usage(7, "1d", "model"),
        "usage of 7 days by hour and project": usage(7, "1h", "project_id"),
        "usage of 31 days of one project by key": usage(31, "1d", "api_key_id", project_id="proj_7"),
        "usage of 31 days of one key": usage(31, "1d", api_key_id="key_7"),
        "usage of a day by minute": usage(1, "1m"),
        "usage of 7 days by user": usage(7, "1d", "user_id"),
        "usage of 31 days of one user": usage(31, "1d", user_id="user 7"),
        "1,000 exported rows": lambda: [next(rows) for rows in [reports.rows(END - DAY, END, {})] for _ in range(2)],
        "cost of a key in 30 days": lambda: storage.usage.spent("key", ["key_7"], END - 30 * DAY, END),
    }


def _measure(query: Callable[[], object]) -> tuple[float, float, float]:
    """Return the duration of a query, its CPU time, and the longest wait of other greenlets, in milliseconds."""
    import gevent

    longest = 0.0

    def tick() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            gevent.sleep(TICK)
            longest = max(longest, time.perf_counter() - before - TICK)

    ticker = gevent.spawn(tick)
    gevent.sleep(0.01)
    longest = 0.0
    started, used = time.perf_counter(), time.process_time()
    query()
    duration, cpu = time.perf_counter() - started, time.process_time() - used
    gevent.sleep(0)
    ticker.kill()
    return duration * 1000, cpu * 1000, longest * 1000


if __name__ == "__main__":
    if len(sys.argv) > 1:
        from gevent.monkey import patch_all

        patch_all()
        run_worker(sys.argv[1])
    else:
        main()
