"""Load generators of a comparison and their reports."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

from bench.paths import BUILD

WRK_SCRIPT: Final = Path(__file__).with_name("load_clients") / "wrk.lua"
DRAIN_SECONDS: Final = 20
"""How long the open loop waits for answers after its last request."""


class LoadError(Exception):
    """A load generator printed something other than its report."""


def start_wrk(port: int, request: Path, connections: int, seconds: float) -> subprocess.Popen[str]:
    """Start a closed loop. Each connection sends its next request after the answer to the last."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}", "--timeout", "60"]
    return subprocess.Popen(
        [*command, "-s", str(WRK_SCRIPT), f"http://127.0.0.1:{port}/v1/chat/completions"],
        env={**os.environ, "BENCH_REQUEST": str(request)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish_wrk(wrk: subprocess.Popen[str]) -> dict[str, float]:
    """Wait for wrk and return its report.

    Raises:
        LoadError: there is none in its output.
    """
    output = wrk.communicate(timeout=180)[0]
    for line in output.splitlines():
        if line.startswith("JSON "):
            report: dict[str, float] = json.loads(line[5:])
            return report
    raise LoadError(output)


def start_open_loop(port: int, request: Path, rate: float, seconds: float) -> subprocess.Popen[str]:
    """Start an open loop, which sends `rate` requests a second whether or not earlier ones were answered."""
    return _start("open_loop", port, request, rate, seconds, DRAIN_SECONDS)


def run_streams(port: int, request: Path, streams: int, rounds: int, timeout: float) -> dict[str, Any]:
    """Run `rounds` rounds of concurrent streams and return the report.

    Raises:
        LoadError: the client printed something else.
    """
    return finish(_start("stream_client", port, request, streams, timeout, rounds))


def finish(program: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a load generator and return its report.

    Raises:
        LoadError: its output is not JSON.
    """
    output = program.communicate()[0]
    try:
        report: dict[str, Any] = json.loads(output)
    except ValueError:
        raise LoadError(output) from None
    return report


def _start(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [str(BUILD / program), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
