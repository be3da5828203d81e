"""A server in a process of its own, started by a command that a document shows."""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.support.snippets import plain_environment
from tests.support.waiting import wait_until

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class SubprocessServer:
    process: subprocess.Popen[bytes]
    port: int
    output_file: Path

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def output(self) -> str:
        """Return everything that the server has written to standard output and standard error."""
        return self.output_file.read_text()


@contextmanager
def run_server(
    command: Sequence[str],
    port: int,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    *,
    timeout: float = 20.0,
    new_session: bool = False,
    host: str = "127.0.0.1",
) -> Iterator[SubprocessServer]:
    """Run `command` in `folder` for the `with` block, which begins once the server is alive on `port`.

    The server is stopped with SIGINT, as Ctrl-C does. With `new_session` the whole session gets the signal, as in a
    terminal. Fail if the server exits or is not alive after `timeout` seconds.
    """
    output_file = folder.parent / f"{folder.name}-output.txt"
    with output_file.open("wb") as writer:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=plain_environment(environment),
            stdout=writer,
            stderr=subprocess.STDOUT,
            start_new_session=new_session,
        )
    server = SubprocessServer(process, port, output_file)
    try:
        _wait_until_alive(server, host, timeout)
        yield server
    finally:
        send = partial(os.killpg, process.pid) if new_session else process.send_signal
        with suppress(ProcessLookupError):
            send(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            send(signal.SIGKILL)
            process.wait()


def _wait_until_alive(server: SubprocessServer, host: str, timeout: float) -> None:
    def is_alive() -> bool:
        assert server.process.poll() is None, f"the server exited:\n{server.output()}"
        with suppress(OSError):
            _OPENER.open(f"http://{host}:{server.port}/healthz", timeout=5).close()
            return True
        return False

    wait_until(is_alive, lambda: f"the server answers:\n{server.output()}", timeout)
