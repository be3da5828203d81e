"""A server started by the very command that a document shows, on a port of the test's choice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.support.snippets import plain_environment

_LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Started:
    process: subprocess.Popen[bytes]
    port: int
    output: Path

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def said(self) -> str:
        """Everything that it has written so far."""
        return self.output.read_text()


@contextmanager
def started(
    command: Sequence[str],
    port: int,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    *,
    within: float = 20.0,
    in_a_session: bool = False,
    host: str = "127.0.0.1",
) -> Iterator[Started]:
    """Runs `command` in `folder` and waits until it answers on `port`; ends it as Ctrl-C does.

    `in_a_session` gives it a session of its own, as a terminal does: Ctrl-C then reaches all that it has started.
    """
    output = folder.parent / f"{folder.name}-output.txt"
    with output.open("wb") as writer:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=plain_environment(environment),
            stdout=writer,
            stderr=subprocess.STDOUT,
            start_new_session=in_a_session,
        )
    server = Started(process, port, output)
    try:
        _wait_until_alive(server, host, within)
        yield server
    finally:
        send = partial(os.killpg, process.pid) if in_a_session else process.send_signal
        with suppress(ProcessLookupError):
            send(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            send(signal.SIGKILL)
            process.wait()


def _wait_until_alive(server: Started, host: str, within: float) -> None:
    deadline = time.monotonic() + within
    while True:
        try:
            _LOCAL.open(f"http://{host}:{server.port}/healthz", timeout=5).close()
            return
        except OSError:
            assert server.process.poll() is None, f"it ended at once:\n{server.said()}"
            assert time.monotonic() < deadline, f"no answer within {within} s:\n{server.said()}"
            time.sleep(0.05)
