"""This server in a process of its own, as gunicorn with gevent workers on a real socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30


class LiveServer:
    """Server that runs in a `with` block.

    gunicorn inherits a listening socket, so that no port has to be chosen and the first connection waits in the queue.
    The server gets only the given environment and starts in `folder` or an empty folder, so that a developer's `.env`
    has no effect. `metrics_port` is set with `has_metrics_port`.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        workers: int = 1,
        folder: Path | None = None,
        has_metrics_port: bool = False,
    ) -> None:
        self._environment = dict(environment or {})
        self._workers = workers
        self._has_metrics_port = has_metrics_port
        self._empty = tempfile.TemporaryDirectory(prefix="server-", ignore_cleanup_errors=True)
        self._folder = folder or Path(self._empty.name)
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> LiveServer:
        listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port: int = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.base_url = f"{self.url}/v1"
        listeners = [listener]
        if self._has_metrics_port:
            listeners.append(socket.create_server(("127.0.0.1", 0)))
            self.metrics_port: int = listeners[1].getsockname()[1]
            self._environment["METRICS_PORT"] = str(self.metrics_port)
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "--config",
            str(ROOT / "gunicorn.conf.py"),
            *(argument for one in listeners for argument in ("--bind", f"fd://{one.fileno()}")),
            "--workers",
            str(self._workers),
        ]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "PYTHONPATH": str(ROOT),
            "ALLOWED_HOSTS": "*",  # tests send names such as `Host: x` to a loopback address
            "INCLUDE_DEFAULT_MODELS": "false",  # they depend on the installed extras
            **self._environment,
        }
        self.process = subprocess.Popen(
            [*command, "wsgi:app"],
            cwd=self._folder,
            env=environment,
            pass_fds=[one.fileno() for one in listeners],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        for one in listeners:
            one.close()
        try:
            urllib.request.urlopen(f"{self.url}/healthz", timeout=START_SECONDS).close()
        except OSError as error:
            self.process.kill()
            raise RuntimeError(f"the server did not start:\n{self.log()}") from error
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()
        self._empty.cleanup()

    def workers(self) -> set[int]:
        """Return the child processes of the master. At a reload one of them checks the configuration."""
        master = self.process.pid
        return {int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()}

    def log(self) -> str:
        """Return everything that the server has written so far."""
        self._log.flush()
        with open(self._log.fileno(), closefd=False) as reader:
            reader.seek(0)
            return reader.read()
