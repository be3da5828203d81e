"""Servers and clients of the chaos test."""

from __future__ import annotations

import http.client
import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import local
from typing import Any, Final

from bench.paths import ROOT
from bench.processes import PROC, ProcessTree, free_port, pss_bytes

from .cases import Case, all_cases, write_models
from .checks import check_json, check_stream

CLIENTS: Final = 48
WORKERS: Final = 2
READ_TIMEOUT: Final = 60
START_TIMEOUT: Final = 30
DISCONNECT_SHARE: Final = 0.02
"""Share of the calls that the client aborts before the answer is complete."""


@dataclass(slots=True)
class Call:
    """One call and its outcome, `complete`, `error` or `disconnected`. Any other outcome is a bug of the server."""

    case: Case
    is_streamed: bool
    outcome: str = ""
    detail: str = ""
    seconds: float = 0.0
    is_fallback: bool = False


class ChaosClient:
    """HTTP client for many threads, each with a persistent connection of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._thread = local()

    def call(self, number: int, rng: random.Random, case: Case) -> Call:
        """Make one call and check its response. Streaming and disconnects are random."""
        is_streamed = rng.random() < 0.5
        prompt = f"question {number} of many, with some more words to break in the middle of"
        body = {"model": case.name, "messages": [{"role": "user", "content": prompt}], "stream": is_streamed}
        disconnects = rng.random() < DISCONNECT_SHARE
        started = time.monotonic()
        call = Call(case, is_streamed)
        try:
            call.outcome, call.detail = self._exchange(body, f"You said: {prompt}", call, disconnects=disconnects)
        except (OSError, http.client.HTTPException) as error:
            self._close()
            call.outcome, call.detail = "broken connection", repr(error)
        call.seconds = time.monotonic() - started
        return call

    def _exchange(self, body: Mapping[str, Any], expected: str, call: Call, *, disconnects: bool) -> tuple[str, str]:
        connection = self._connection()
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        if disconnects:
            time.sleep(0.02)
            self._close()
            return "disconnected", ""
        response = connection.getresponse()
        call.is_fallback = response.headers["x-openai-compat-fallback"] == "true"
        content = response.read()
        is_stream = (response.headers["content-type"] or "").startswith("text/event-stream")
        return (check_stream if is_stream else check_json)(response.status, content, expected)

    def _connection(self) -> http.client.HTTPConnection:
        if getattr(self._thread, "connection", None) is None:
            self._thread.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=READ_TIMEOUT)
        connection: http.client.HTTPConnection = self._thread.connection
        return connection

    def _close(self) -> None:
        self._connection().close()
        self._thread.connection = None


@dataclass(slots=True)
class Footprint:
    """Proportional memory and open files of each worker, and requests open at the upstream."""

    memory_bytes: list[int]
    open_files: list[int]
    upstream_requests: int

    def to_json(self) -> dict[str, Any]:
        """Return the footprint with its memory in MiB."""
        return {**asdict(self), "memory_bytes": [round(size / 2**20, 1) for size in self.memory_bytes]}


class ChaosServers:
    """The mock upstream and this server with two workers in front of it, running in a `with` block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> ChaosServers:
        python = [sys.executable, "-m"]
        self.upstream_port, self.port = free_port(), free_port()
        environ = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(self._folder)}
        mock = [*python, "openai_compat.tools.mock_upstream", "--port", str(self.upstream_port)]
        self._upstream = ProcessTree(mock, self._folder, environ, "upstream.log")
        write_models(self._folder / "models.json", f"http://127.0.0.1:{self.upstream_port}/v1")
        settings = {"MODELS_FILE": str(self._folder / "models.json"), "UPSTREAM_KEY": "sk-of-the-server"}
        serve = [*python, "gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), "wsgi:app"]
        serve += ["--bind", f"127.0.0.1:{self.port}", "--workers", str(WORKERS)]
        self._server = ProcessTree(serve, self._folder, {**environ, **settings}, "server.log")
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

    def run(self, count: int, seed: int, first: int = 0) -> list[Call]:
        """Make `count` calls from `CLIENTS` threads and return them with their outcomes."""
        client, cases = ChaosClient(self.port), all_cases()

        def call(number: int) -> Call:
            rng = random.Random(f"{seed} {number}")
            return client.call(number, rng, rng.choice(cases))

        with ThreadPoolExecutor(CLIENTS) as pool:
            return list(pool.map(call, range(first, first + count)))

    def footprint(self) -> Footprint:
        """Return what the workers and the upstream hold now."""
        workers = [pid for pid in self._server.pids() if pid != self._server.process.pid]
        files = [len(list((PROC / str(pid) / "fd").iterdir())) for pid in workers]
        return Footprint([pss_bytes(pid) for pid in workers], files, self._upstream_stats()["requests_open"])

    def idle_footprint(self, timeout: float) -> Footprint:
        """Return the footprint once no connection to the upstream is open, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self._upstream_stats()["connections_open"] and time.monotonic() < deadline:
            time.sleep(1)
        return self.footprint()

    def _upstream_stats(self) -> dict[str, int]:
        stats: dict[str, int] = json.loads(get(self.upstream_port, "/__mock__/stats").read())
        return stats


def get(port: int, path: str) -> http.client.HTTPResponse:
    """Send a GET request on a new connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Connection": "close"})
    return connection.getresponse()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds.

    Raises:
        SystemExit: it does not hold after `START_TIMEOUT` seconds.
    """
    deadline = time.monotonic() + START_TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the servers did not start")
        time.sleep(0.05)
