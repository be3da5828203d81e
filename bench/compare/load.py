"""The load programs, and what they report."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any, Final

from bench.paths import BUILD

WRK_SCRIPT: Final = Path(__file__).parent / "load_clients" / "wrk.lua"


class LoadError(Exception):
    """A load program did not do its work."""


def start_wrk(port: int, request: Path, connections: int, seconds: float) -> subprocess.Popen[str]:
    """Closed loop: every connection sends its next request when it has the answer to the last."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}", "--timeout", "60"]
    return subprocess.Popen(
        [*command, "-s", str(WRK_SCRIPT), f"http://127.0.0.1:{port}/v1/chat/completions"],
        env={**os.environ, "BENCH_REQUEST": str(request)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish_wrk(wrk: subprocess.Popen[str]) -> dict[str, float]:
    output = wrk.communicate(timeout=180)[0]
    for line in output.splitlines():
        if line.startswith("JSON "):
            report: dict[str, float] = json.loads(line[5:])
            return report
    raise LoadError(output)


def start_open_loop(port: int, request: Path, rate: float, seconds: float) -> subprocess.Popen[str]:
    return _start("open_loop", port, request, rate, seconds, 20)


def run_streams(port: int, request: Path, streams: int, rounds: int, limit: float) -> dict[str, Any]:
    return finish(_start("stream_client", port, request, streams, limit, rounds))


def finish(program: subprocess.Popen[str]) -> dict[str, Any]:
    output = program.communicate()[0]
    try:
        report: dict[str, Any] = json.loads(output)
    except ValueError:
        raise LoadError(output) from None
    return report


def _start(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [str(BUILD / program), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def send_once(port: int, request: bytes, timeout: float) -> int:
    """Sends one request over a connection of its own; the answer's status, 0 when there was none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as sock:
            sock.sendall(request)
            answer = sock.makefile("rb")
            words = answer.readline().split()
            length = 0
            while line := answer.readline().strip().lower():
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            answer.read(length)
            return int(words[1]) if len(words) > 1 else 0
    except OSError:
        return 0
