"""Starts the mock upstream as a process of its own, and reads what it has seen."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]


class MockUpstream:
    """A running mock upstream; use it in a `with` statement. `options` go to the command line."""

    def __init__(self, *options: str) -> None:
        """Prepare to start; nothing runs yet."""
        self._command = [sys.executable, "-m", "openai_compat.tools.mock_upstream", "--port", "0", *options]
        self.url = ""

    def __enter__(self) -> Self:
        """Start the process and wait until it listens."""
        self.process = subprocess.Popen(self._command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("mock upstream listening on http://"), f"it said {line!r}"
        self.url = line.split()[-1]
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise

    @property
    def base_url(self) -> str:
        """What an OpenAI client is given as its `base_url`."""
        return f"{self.url}/v1"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for raw sockets."""
        parts = urlsplit(self.url)
        return str(parts.hostname), int(parts.port or 0)

    def stats(self) -> dict[str, Any]:
        """Return the counters: connections, requests, those aborted by the peer, models."""
        stats: dict[str, Any] = self._control("GET", "stats")
        return stats

    def requests(self) -> list[dict[str, Any]]:
        """Return the last 100 requests, the oldest first."""
        requests: list[dict[str, Any]] = self._control("GET", "requests")
        return requests

    def reset(self) -> None:
        """Zero the counters, forget the requests, and let every `times=` fault happen anew."""
        self._control("POST", "reset")

    def wait_until(self, predicate: Callable[[dict[str, Any]], bool], timeout: float = 5.0) -> dict[str, Any]:
        """Return the first counters that satisfy `predicate`; fail with the last ones after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not predicate(stats := self.stats()):
            assert time.monotonic() < deadline, f"still {stats} after {timeout} s"
            time.sleep(0.01)
        return stats

    def _control(self, method: str, name: str) -> Any:
        """Ask the mock about itself; without `requests`, which tests replace."""
        connection = http.client.HTTPConnection(*self.address, timeout=10)
        try:
            connection.request(method, f"/__mock__/{name}")
            return json.load(connection.getresponse())
        finally:
            connection.close()
