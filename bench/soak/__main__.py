"""Command line of the soak test, `make soak ARGS=...`.

Two workers behind nginx serve 100 honest clients while ten attacks run at once. Honest calls must all succeed, half of
the clients stream and the 99th percentile of their time to first token must stay below `MAX_FIRST_TOKEN_MS`, each
worker below `MAX_WORKER_BYTES`, and no worker may restart.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.machine import describe_hardware
from bench.paths import RESULTS, ROOT
from bench.processes import ProcessTree, free_port, pss_bytes
from bench.systems import RunningSystem, launch_upstream, send_once
from bench.workloads import KEY, MODEL, bodies, to_request
from tests.support.nginx import Nginx, nginx_in_front_of

from .hostile_upstream import ATTACKS as UPSTREAM_ATTACKS

MAX_FIRST_TOKEN_MS: Final = 500
MAX_WORKER_BYTES: Final = 400 * 2**20
WORKERS: Final = 2
START_SECONDS: Final = 30
HEAD_START_SECONDS: Final = 3
"""Time for which the honest clients run before the attacks begin."""
SHOWN_FAILURES: Final = 10


@dataclass(frozen=True, slots=True)
class Site:
    """The server with its processes, and nginx in front of it."""

    server: ProcessTree
    port: int
    nginx: Nginx

    def workers(self) -> list[int]:
        return [pid for pid in self.server.pids() if pid != self.server.process.pid]


@contextmanager
def running_site(folder: Path) -> Iterator[Site]:
    """Run two upstreams, the server with two workers, and nginx."""
    honest = launch_upstream(folder / "upstream")
    hostile_port, port = free_port(), free_port()
    python = [sys.executable, "-m"]
    environ = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    hostile = ProcessTree([*python, "bench.soak.hostile_upstream", str(hostile_port)], folder, environ, "hostile.log")
    settings = {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "WEB_CONCURRENCY": str(WORKERS),
        "API_KEYS": KEY,
        "MODELS_FILE": str(write_models(folder / "models.json", honest, hostile_port)),
    }
    server = ProcessTree([*python, "openai_compat", "serve"], folder, {**environ, **settings}, "server.log")
    try:
        wait_for_answer(server, port)
        with nginx_in_front_of(f"http://127.0.0.1:{port}") as nginx:
            yield Site(server, port, nginx)
    finally:
        for processes in (server, hostile, honest.processes):
            processes.stop()


def write_models(path: Path, honest: RunningSystem, hostile_port: int) -> Path:
    """Write a models file with the honest model, one for each attack of the hostile upstream, and the echo model."""
    rows = {MODEL: honest.site.upstream} | dict.fromkeys(UPSTREAM_ATTACKS, f"http://127.0.0.1:{hostile_port}/v1")
    models = [{"name": name, "kind": "openai", "base_url": url} for name, url in rows.items()]
    models.append({"name": "echo", "kind": "echo"})
    path.write_text(json.dumps({"models": models}))
    return path


def wait_for_answer(server: ProcessTree, port: int) -> None:
    """Wait for the first answer of the honest model.

    Raises:
        SystemExit: there is none within `START_SECONDS`.
    """
    request = to_request(bodies()["1kB"], port, {})
    deadline = time.monotonic() + START_SECONDS
    while send_once(port, request, 5) != 200:
        if time.monotonic() > deadline:
            raise SystemExit(f"The server did not start:\n{server.last_log_lines()}")
        time.sleep(0.1)


def measure(site: Site, seconds: float, only: str) -> dict[str, Any]:
    """Run the clients and the attacks, and return what the clients saw and what the workers needed."""
    before = site.workers()
    honest = Program("honest_clients", str(site.nginx.port), str(seconds))
    time.sleep(HEAD_START_SECONDS)
    attack_seconds = str(max(0.0, seconds - 2 * HEAD_START_SECONDS))
    attacks = None
    if only != "none":
        attacks = Program("attacks", f"{site.nginx.port},{site.port}", attack_seconds, only)
    peak = 0
    while honest.is_running():
        peak = max([peak, *map(pss_bytes, set(before) & set(site.workers()))])
        time.sleep(0.5)
    return {
        "honest": honest.result(),
        "attacks": attacks.result() if attacks else {},
        "peak_worker_bytes": peak,
        "restarts": len(set(before) - set(site.workers())),
    }


class Program:
    """A module of this package that prints JSON at its end. It goes to a file, as a pipe has no room for it."""

    def __init__(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"bench.soak.{module}", *arguments]
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `result`
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=self._output)

    def is_running(self) -> bool:
        return self._process.poll() is None

    def result(self) -> dict[str, Any]:
        """Wait for the end and return what was printed."""
        self._process.wait()
        with self._output:
            self._output.seek(0)
            printed: dict[str, Any] = json.load(self._output)
        return printed


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile, infinity if there are no values."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)], 1) if ordered else float("inf")


def find_problems(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each bound that does not hold."""
    honest = result["honest"]
    if honest["failures"]:
        yield f"{len(honest['failures'])} honest calls failed"
    if (latency := percentile(honest["first_token_ms"], 99)) > MAX_FIRST_TOKEN_MS:
        yield f"p99 of the time to first token is {latency} ms (allowed: {MAX_FIRST_TOKEN_MS} ms)"
    if result["peak_worker_bytes"] > MAX_WORKER_BYTES:
        yield f"a worker needed {result['peak_worker_bytes'] >> 20} MiB (allowed: {MAX_WORKER_BYTES >> 20} MiB)"
    if result["restarts"]:
        yield f"{result['restarts']} workers were restarted"


def to_markdown(result: Mapping[str, Any], seconds: float, machine: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the page."""
    honest = result["honest"]
    yield f"# Honest clients during attacks, {seconds:g} s\n"
    yield f"{machine['cores']} cores of {machine['cpu']}, Python {machine['python']}. {WORKERS} workers behind nginx.\n"
    yield "| | |\n| --- | --- |"
    counts = ", ".join(str(len(honest[key])) for key in ("first_token_ms", "answer_ms", "failures"))
    yield f"| streams, answers, failures | {counts} |"
    for title, key in (("time to first token", "first_token_ms"), ("complete answer", "answer_ms")):
        figures = ", ".join(f"{percentile(honest[key], percent)}" for percent in (50, 99, 100))
        yield f"| {title} p50, p99, largest | {figures} ms |"
    yield f"| largest memory of a worker (PSS) | {result['peak_worker_bytes'] >> 20} MiB |"
    yield f"| restarted workers | {result['restarts']} |"
    for name, outcomes in result["attacks"].items():
        counts = ", ".join(f"{outcome}: {count:,}" for outcome, count in sorted(outcomes.items()))
        yield f"| attack `{name}` | {counts or 'no answer'} |"


def main() -> int:
    """Run the test, write and print its report, and return 1 if a bound does not hold."""
    parser = argparse.ArgumentParser(prog="make soak ARGS=", description="Serve honest clients during attacks.")
    parser.add_argument("--seconds", type=float, default=120, help="length of the run (default: %(default)s)")
    parser.add_argument("--only", default="", help="name of one attack, or none")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, running_site(Path(folder)) as site:
        result = measure(site, arguments.seconds, arguments.only)
    machine = describe_hardware()
    page = "\n".join(to_markdown(result, arguments.seconds, machine))
    problems = list(find_problems(result))
    print(page, *result["honest"]["failures"][:SHOWN_FAILURES], *problems, sep="\n")
    if not arguments.only:
        (RESULTS / "soak.md").write_text(page + "\n")
        date = datetime.now(UTC).date().isoformat()
        report = {"date": date, "machine": machine, "seconds": arguments.seconds, "problems": problems, **result}
        (RESULTS / "soak.json").write_text(json.dumps(report, indent=1) + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
