"""The longest time that one request holds a worker, `python -m bench.hostile_requests`.

All calls of a worker share one thread, so the time between two switches of greenlets is what other callers wait. It is
measured as CPU time, because other processes on the machine do not change that.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

# ruff: noqa: E402 # the patches come first
import argparse
import io
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gevent
import greenlet
from werkzeug.wsgi import ClosingIterator

from bench.machine import describe_hardware
from bench.paths import RESULTS, ROOT
from bench.processes import ProcessTree, free_port
from openai_compat.app import create_app

from .bodies import Body, all_bodies

LIMIT_MS: Final = 250
MODELS: Final = ("echo", "forwarded")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request. `held_ms` is the longest time that it held the worker, and `size` the answer's bytes."""

    model: str
    body: Body
    status: int
    held_ms: float
    cpu_ms: float
    size: int

    @property
    def is_bad(self) -> bool:
        """True if others waited too long, or the status is wrong."""
        must_succeed = self.body.is_honest and self.model == "forwarded"
        return self.held_ms > LIMIT_MS or (self.status != 200 if must_succeed else self.status >= 500)


class SwitchTimer:
    """Timer of the CPU time between two switches of greenlets."""

    def __init__(self) -> None:
        self._since = self.longest = 0.0
        greenlet.settrace(self._on_switch)

    def start(self) -> None:
        """Forget what was measured."""
        self._since, self.longest = time.thread_time(), 0.0

    def _on_switch(self, _event: str, _greenlets: object) -> None:
        now = time.thread_time()
        self.longest = max(self.longest, now - self._since)
        self._since = time.thread_time()


def ask(app: Any, model: str, body: Body, timer: SwitchTimer) -> Outcome:
    """Send the request to the application as a WSGI server would, and read the whole answer."""
    status = size = 0

    def start_response(line: str, *_: object) -> None:
        nonlocal status
        status = int(line[:3])

    environ = to_environ(body)
    started = time.thread_time()
    timer.start()
    answer = ClosingIterator(app(environ, start_response))
    for block in answer:
        size += len(block)
        gevent.sleep(0)  # the server writes the block here
    answer.close()
    gevent.sleep(0)
    return Outcome(model, body, status, timer.longest * 1000, (time.thread_time() - started) * 1000, size)


def to_environ(body: Body) -> dict[str, Any]:
    """Return the WSGI environment of a request."""
    environ = {
        "REQUEST_METHOD": "POST", "SCRIPT_NAME": "", "PATH_INFO": body.path, "RAW_URI": body.path, "QUERY_STRING": "",
        "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body.content)),
        "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(body.content),
        "wsgi.input_terminated": True, "wsgi.errors": sys.stderr, "wsgi.multithread": False,
        "wsgi.multiprocess": True, "wsgi.run_once": False,
    }  # fmt: skip
    if body.encoding:
        environ["HTTP_CONTENT_ENCODING"] = body.encoding
    return environ


def measure(only: str, report: Callable[[Outcome], None]) -> None:
    """Send all requests whose name contains `only` to the echo model and to a forwarded one."""
    timer = SwitchTimer()
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        port = free_port()
        command = [sys.executable, "-m", "bench.hostile_requests.upstream", str(port)]
        upstream = ProcessTree(command, Path(folder), {**os.environ, "PYTHONPATH": str(ROOT)}, "upstream.log")
        try:
            app = _create_app(Path(folder), port)
            for model in MODELS:
                for body in all_bodies(model):
                    if only in body.name:
                        report(gevent.spawn(ask, app, model, body, timer).get())
        finally:
            upstream.stop()


def _create_app(folder: Path, port: int) -> Any:
    models = [
        {"name": "echo", "kind": "echo"},
        {"name": "forwarded", "kind": "openai", "base_url": f"http://127.0.0.1:{port}/v1"},
    ]
    (folder / "models.json").write_text(json.dumps(models))
    os.environ["MODELS_FILE"] = str(folder / "models.json")
    app = create_app()
    logging.getLogger("openai_compat").setLevel(logging.CRITICAL)
    return app


def to_row(outcome: Outcome) -> str:
    """Return a row of the table."""
    return (
        f"| {outcome.model} | {outcome.body.name} | {len(outcome.body.content):,} | {outcome.status} "
        f"| {outcome.held_ms:.0f} ms | {outcome.cpu_ms:.0f} ms | {outcome.size:,} |"
    )


def to_page(outcomes: list[Outcome]) -> str:
    """Return the results as Markdown."""
    machine = describe_hardware()
    head = "| model | request | bytes | status | longest hold of the worker | CPU time | bytes of the answer |"
    lines = [f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}", "", head, "|---" * 7 + "|"]
    return "\n".join([*lines, *map(to_row, outcomes)]) + "\n"


def main() -> int:
    """Measure, write the results, and return 1 if a request is bad."""
    parser = argparse.ArgumentParser(prog="python -m bench.hostile_requests", description="Send costly requests.")
    parser.add_argument("--only", default="", help="requests whose name contains this text")
    arguments = parser.parse_args()
    outcomes: list[Outcome] = []

    def report(outcome: Outcome) -> None:
        outcomes.append(outcome)
        print(to_row(outcome), flush=True)

    measure(arguments.only, report)
    if not arguments.only:
        (RESULTS / "hostile.md").write_text(to_page(outcomes))
    bad = [f"{outcome.model}: {outcome.body.name}" for outcome in outcomes if outcome.is_bad]
    print(f"{len(bad)} of {len(outcomes)} requests hold a worker for more than {LIMIT_MS} ms or fail", *bad, sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
