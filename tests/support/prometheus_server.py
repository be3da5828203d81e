"""A real Prometheus, which scrapes a server under test."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.tools import require_tool
from tests.support.waiting import wait_until

CONFIGURATION = """
global: {{scrape_interval: 200ms, evaluation_interval: 200ms}}
rule_files: [{rules}]
scrape_configs:
  - job_name: openai-compat
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


@dataclass(frozen=True)
class Prometheus:
    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an expression."""
        data: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        return data

    def value(self, expression: str) -> float | None:
        """Return the value of an expression that has one sample, or None without any."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def names(self) -> set[str]:
        """Return the names of all metrics that were scraped."""
        return set(self._get("label/__name__/values"))

    def _get(self, path: str, **parameters: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urlencode(parameters)}", timeout=10) as response:
            return json.load(response)["data"]


@contextmanager
def running_prometheus(folder: Path, port: int, rules: Path) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes `port` five times a second."""
    program = require_tool("prometheus")
    configuration, log = folder / "prometheus.yml", folder / "prometheus.log"
    configuration.write_text(CONFIGURATION.format(port=port, rules=rules))
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = f"127.0.0.1:{free.getsockname()[1]}"
    options = [
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={own}",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen([program, *options], stdout=output, stderr=subprocess.STDOUT)
    try:
        prometheus = Prometheus(f"http://{own}")
        wait_until(lambda: "ready to receive web requests" in log.read_text(), log.read_text)
        yield prometheus
    finally:
        process.terminate()
        process.wait(20)
