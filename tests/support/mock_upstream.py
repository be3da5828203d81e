"""The mock upstream in a process of its own, and a reader of its counters."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


class MockUpstream:
    """A mock upstream that runs in a `with` block."""

    def __init__(self, *options: str) -> None:
        """Set the command line, to which `options` are added."""
        self._command = [sys.executable, "-m", "openai_compat.tools.mock_upstream", "--port", "0", *options]
        self.url = ""

    def __enter__(self) -> Self:
        """Start the process and wait until it listens."""
        self.process = subprocess.Popen(self._command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("mock upstream listening on http://"), f"unexpected output {line!r}"
        self.url = line.split()[-1]
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Terminate the process."""
        self.process.terminate()
        try:
            self.process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise

    @property
    def base_url(self) -> str:
        """The `base_url` for an OpenAI client."""
        return f"{self.url}/v1"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port for raw sockets."""
        parts = urlsplit(self.url)
        return str(parts.hostname), int(parts.port or 0)

    def stats(self) -> dict[str, Any]:
        """Return the counters of connections, requests, aborted requests and models."""
        stats: dict[str, Any] = self._control("GET", "stats")
        return stats

    def requests(self) -> list[dict[str, Any]]:
        """Return the last 100 requests, oldest first."""
        requests: list[dict[str, Any]] = self._control("GET", "requests")
        return requests

    def reset(self) -> None:
        """Reset the counters and the requests, and let every `times=` fault occur again."""
        self._control("POST", "reset")

    def wait_until(self, predicate: Callable[[dict[str, Any]], bool], seconds: float = 20.0) -> dict[str, Any]:
        """Wait for counters that satisfy `predicate` and return them."""
        stats: dict[str, Any] = {}

        def holds() -> bool:
            stats.update(self.stats())
            return predicate(stats)

        wait_until(holds, lambda: f"the counters of the mock upstream, which are {stats}", seconds)
        return stats

    def _control(self, method: str, name: str) -> Any:
        """Send a request to `/__mock__/` with the standard library, because some tests replace `requests`."""
        connection = http.client.HTTPConnection(*self.address, timeout=10)
        try:
            connection.request(method, f"/__mock__/{name}")
            return json.load(connection.getresponse())
        finally:
            connection.close()
