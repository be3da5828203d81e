"""Calls with a random fault each, and what became of every one of them: `make chaos`, or `python -m bench.chaos`.

The mock upstream misbehaves in every way of docs/guides/routing.md's table; two workers route the calls. Each asks a
question of its own, so that an answer that is short, mixed with another or given twice is told from the right one. At
the end nothing may be open at the upstream, and the workers must have the memory and the files that they had before,
after a warm-up.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import local
from typing import Any, Final

from bench.machine import describe_hardware
from bench.paths import RESULTS, ROOT
from bench.processes import PROC, Running, free_port, pss_bytes, tree_of

from .cases import Case, all_cases, write_models
from .checks import judge_stream, judge_whole

CALLERS: Final = 48
WARM_UP: Final = 4000
"""By then the allocator has what it needs for so many calls at once."""
WORKERS: Final = 2
IDLE_SECONDS: Final = 70
"""After so long the server has closed the connections to upstreams that it kept for the next call."""
READ_SECONDS: Final = 60
LEAVES: Final = 0.02
"""The share of callers who hang up before their answer is whole."""


@dataclass(slots=True)
class Outcome:
    """What became of a call: `whole`, `error`, `left`; anything else is a fault of the server's."""

    case: Case
    is_streamed: bool
    verdict: str
    detail: str = ""
    seconds: float = 0.0
    is_fallback: bool = False


class Caller:
    """Asks from many threads, each with a connection of its own that it keeps while it can."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._own = local()

    def ask(self, number: int, chance: random.Random, case: Case) -> Outcome:
        is_streamed = chance.random() < 0.5
        question = f"question {number} of many, with some more words to break in the middle of"
        body = {"model": case.name, "messages": [{"role": "user", "content": question}], "stream": is_streamed}
        leaves = chance.random() < LEAVES
        began = time.monotonic()
        outcome = Outcome(case, is_streamed, "")
        try:
            outcome.verdict, outcome.detail = self._exchange(body, f"You said: {question}", outcome, leaves=leaves)
        except (OSError, http.client.HTTPException) as error:
            self._forget()
            outcome.verdict, outcome.detail = "broken connection", repr(error)
        outcome.seconds = time.monotonic() - began
        return outcome

    def _exchange(self, body: Mapping[str, Any], text: str, outcome: Outcome, *, leaves: bool) -> tuple[str, str]:
        connection = self._connection()
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        if leaves:
            time.sleep(0.02)
            self._forget()
            return "left", ""
        response = connection.getresponse()
        outcome.is_fallback = response.headers["x-openai-compat-fallback"] == "true"
        content = response.read()
        is_stream = (response.headers["content-type"] or "").startswith("text/event-stream")
        return (judge_stream if is_stream else judge_whole)(response.status, content, text)

    def _connection(self) -> http.client.HTTPConnection:
        if getattr(self._own, "connection", None) is None:
            self._own.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=READ_SECONDS)
        connection: http.client.HTTPConnection = self._own.connection
        return connection

    def _forget(self) -> None:
        self._connection().close()
        self._own.connection = None


@dataclass(slots=True)
class Weight:
    """What the server holds: proportional memory and open files of its workers, requests open at the upstream."""

    memory_bytes: list[int]
    open_files: list[int]
    upstream_requests: int

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "memory_bytes": [round(size / 2**20, 1) for size in self.memory_bytes]}


@dataclass(slots=True)
class Report:
    """What the calls came to. `problems` is what must not be there."""

    calls: int
    seconds: float
    outcomes: Counter[str] = field(default_factory=Counter)
    by_case: dict[str, Counter[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    fallbacks: int = 0
    slowest_seconds: float = 0.0
    before: Weight | None = None
    after: Weight | None = None


def judge(outcomes: list[Outcome], report: Report) -> None:
    """Counts the outcomes, and names those that are none."""
    for outcome in outcomes:
        case, verdict = outcome.case, outcome.verdict
        report.outcomes[verdict] += 1
        report.by_case.setdefault(case.name, Counter())[f"{verdict} {outcome.detail}".strip()[:60]] += 1
        report.fallbacks += outcome.is_fallback
        report.slowest_seconds = max(report.slowest_seconds, round(outcome.seconds, 2))
        expected = {"left"} | (set() if case.must_fail else {"whole"})
        expected |= {"error"} if case.may_fail[outcome.is_streamed] else set()
        if verdict not in expected:
            kind = "streamed" if outcome.is_streamed else "whole"
            report.problems.append(f"{case.name}, {kind}: {verdict} {outcome.detail}")


class Chaos:
    """The mock upstream, and this server with two workers in front of it, while the `with` block lasts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Chaos:
        python = [sys.executable, "-m"]
        self.upstream_port, self.port = free_port(), free_port()
        environ = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(self._folder)}
        mock = [*python, "openai_compat.tools.mock_upstream", "--port", str(self.upstream_port)]
        self._upstream = Running(mock, self._folder, environ, "upstream.log")
        write_models(self._folder / "models.json", f"http://127.0.0.1:{self.upstream_port}/v1")
        settings = {"MODELS_FILE": str(self._folder / "models.json"), "UPSTREAM_KEY": "sk-of-the-server"}
        serve = [*python, "gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), "wsgi:app"]
        serve += ["--bind", f"127.0.0.1:{self.port}", "--workers", str(WORKERS)]
        self._server = Running(serve, self._folder, {**environ, **settings}, "server.log")
        wait_for(lambda: self._answers(self.port, "/healthz") and self._answers(self.upstream_port, "/__mock__/stats"))
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self._upstream.stop()

    @staticmethod
    def _answers(port: int, path: str) -> bool:
        try:
            return get(port, path).status == http.client.OK
        except OSError:
            return False

    def run(self, calls: int, seed: int, first: int = 0) -> list[Outcome]:
        """Asks `calls` times, from many callers at once."""
        caller, cases = Caller(self.port), all_cases()

        def ask(number: int) -> Outcome:
            chance = random.Random(f"{seed} {number}")
            return caller.ask(number, chance, chance.choice(cases))

        with ThreadPoolExecutor(CALLERS) as pool:
            return list(pool.map(ask, range(first, first + calls)))

    def weigh(self) -> Weight:
        workers = [pid for pid in tree_of(self._server.process.pid) if pid != self._server.process.pid]
        stats = json.loads(get(self.upstream_port, "/__mock__/stats").read())
        files = [len(list((PROC / str(pid) / "fd").iterdir())) for pid in workers]
        return Weight([pss_bytes(pid) for pid in workers], files, stats["requests_open"])

    def settle(self, seconds: float) -> Weight:
        """The weight once nothing is open at the upstream and kept connections are closed, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while self._open_connections() and time.monotonic() < deadline:
            time.sleep(1)
        return self.weigh()

    def _open_connections(self) -> int:
        stats = json.loads(get(self.upstream_port, "/__mock__/stats").read())
        return int(stats["connections_open"])


def get(port: int, path: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Connection": "close"})
    return connection.getresponse()


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the servers did not start")
        time.sleep(0.05)


def measure(calls: int, seed: int, folder: Path, warm_up: int) -> Report:
    """A warm-up, the calls, and the server's weight before and after them, both times at rest."""
    with Chaos(folder) as chaos:
        first = chaos.run(warm_up, seed)
        before = chaos.settle(IDLE_SECONDS)
        began = time.monotonic()
        outcomes = chaos.run(calls, seed, first=warm_up)
        report = Report(calls, round(time.monotonic() - began, 1))
        report.before, report.after = before, chaos.settle(IDLE_SECONDS)
    judge(first, Report(warm_up, 0.0, problems=report.problems))
    judge(outcomes, report)
    return report


def to_markdown(report: Report, machine: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {report.calls:,} calls with a random fault each\n"
    yield f"{machine['cores']} cores of {machine['cpu']}, Python {machine['python']}."
    yield f"{WORKERS} workers, {CALLERS} callers, {report.seconds:g} s.\n"
    yield "| | |\n| --- | --- |"
    yield from (f"| {verdict} | {count:,} |" for verdict, count in report.outcomes.most_common())
    yield f"| answered by a fallback | {report.fallbacks:,} |"
    yield f"| short, mixed, doubled, or in another shape | {len(report.problems):,} |"
    yield f"| slowest answer | {report.slowest_seconds:g} s |"
    for name, weight in (("before", report.before), ("after", report.after)):
        if weight is not None:
            sizes = " and ".join(f"{size / 2**20:.1f} MiB" for size in weight.memory_bytes)
            files = " and ".join(map(str, weight.open_files))
            yield f"| {name}: memory (PSS), open files of the workers | {sizes}; {files} |"
            yield f"| {name}: requests open at the upstream | {weight.upstream_requests} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--warm-up", type=int, default=WARM_UP, help="calls before those that are counted")
    parser.add_argument("--seed", type=int, default=6)
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    machine = describe_hardware()
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        report = measure(arguments.calls, arguments.seed, Path(folder), arguments.warm_up)
    lines = "\n".join(to_markdown(report, machine))
    print(lines, *report.problems[:20], sep="\n")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "chaos.md").write_text(lines + "\n")
    (RESULTS / "chaos.json").write_text(json.dumps(to_json(report, machine, arguments.seed), indent=2) + "\n")
    return 1 if report.problems else 0


def to_json(report: Report, machine: Mapping[str, Any], seed: int) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": dict(machine),
        "seed": seed,
        "calls": report.calls,
        "seconds": report.seconds,
        "outcomes": dict(report.outcomes),
        "fallbacks": report.fallbacks,
        "slowest_seconds": report.slowest_seconds,
        "problems": report.problems,
        "before": report.before.to_json() if report.before else None,
        "after": report.after.to_json() if report.after else None,
        "by_case": {name: dict(counts) for name, counts in sorted(report.by_case.items())},
    }


if __name__ == "__main__":
    sys.exit(main())
