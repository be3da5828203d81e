"""Systems under test, each a process on one core, and the upstream that all of them forward to."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

from .paths import BUILD, ROOT
from .processes import Cores, ProcessTree, free_port
from .workloads import KEY, bodies, to_request, write_requests

START_TIMEOUT: Final = 120
UPSTREAM_START_TIMEOUT: Final = 5
POLL_INTERVAL: Final = 0.005
UPSTREAM_KEY: Final = "sk-upstream-0123456789abcdef"


class StartError(Exception):
    """A system did not answer its first request with status 200."""


@dataclass(frozen=True, slots=True)
class Site:
    """Working folder of a system, the port that it listens on, and the port of the upstream."""

    folder: Path
    port: int
    upstream_port: int

    @property
    def upstream(self) -> str:
        return f"http://127.0.0.1:{self.upstream_port}/v1"


@dataclass(frozen=True, slots=True)
class Command:
    """A command and the environment variables that it needs in addition to `PATH`, `HOME` and `LC_ALL`."""

    arguments: list[str]
    environ: Mapping[str, str] = field(default_factory=dict)

    def to_environ(self, folder: Path) -> dict[str, str]:
        """Return the complete environment, with `folder` as the home."""
        return {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8", **self.environ}


@dataclass(frozen=True, slots=True)
class System:
    """One system of a comparison.

    `prepare` installs what is missing and returns the version. It raises `NotInstalled` with the reason where that
    fails. `command` returns how the system is started, `headers` what its requests need.
    """

    name: str
    title: str
    prepare: Callable[[], str]
    command: Callable[[Site], Command]
    headers: Callable[[Site], Mapping[str, str]] = lambda _site: {}


@dataclass(frozen=True, slots=True)
class RunningSystem:
    """A system that has answered its first request. `system` is None for the upstream itself."""

    system: System | None
    site: Site
    processes: ProcessTree
    requests: Mapping[str, Path]
    startup_seconds: float


def launch(system: System, folder: Path, upstream_port: int, cores: Cores) -> RunningSystem:
    """Start a system on the server's core and wait for its first answer.

    Raises:
        StartError: the system exited, or did not answer with status 200 within `START_TIMEOUT` seconds.
    """
    site = Site(folder, free_port(), upstream_port)
    folder.mkdir(parents=True, exist_ok=True)
    requests = write_requests(folder, site.port, system.headers(site))
    command = system.command(site)
    started = time.monotonic()
    processes = ProcessTree(cores.on_server(command.arguments), folder, command.to_environ(folder), "server.log")
    first = requests["1kB"].read_bytes()
    while (status := send_once(site.port, first, START_TIMEOUT)) != 200:
        has_timed_out = time.monotonic() - started > START_TIMEOUT
        if has_timed_out or processes.process.poll() is not None:
            processes.stop()
            raise StartError(f"{system.title} returned status {status or 'none'}:\n{processes.last_log_lines()}")
        time.sleep(POLL_INTERVAL)
    return RunningSystem(system, site, processes, requests, time.monotonic() - started)


def launch_upstream(folder: Path) -> RunningSystem:
    """Start the upstream on the cores of the load and wait for its first answer.

    Raises:
        StartError: it did not answer within `UPSTREAM_START_TIMEOUT` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    processes = ProcessTree([str(BUILD / "stream_upstream"), str(port)], folder, {}, "upstream.log")
    first = to_request(bodies()["1kB"], port, {})
    started = time.monotonic()
    while send_once(port, first, UPSTREAM_START_TIMEOUT) != 200:
        if time.monotonic() - started > UPSTREAM_START_TIMEOUT:
            raise StartError(processes.last_log_lines())
        time.sleep(POLL_INTERVAL)
    requests = write_requests(folder, port, {})
    return RunningSystem(None, Site(folder, port, port), processes, requests, time.monotonic() - started)


def send_once(port: int, request: bytes, timeout: float) -> int:
    """Send one request on a new connection and return the status, 0 when there was no answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as sock:
            sock.sendall(request)
            answer = sock.makefile("rb")
            status_line = answer.readline().split()
            length = 0
            while line := answer.readline().strip().lower():
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            answer.read(length)
            return int(status_line[1]) if len(status_line) > 1 else 0
    except OSError:
        return 0


def our_version() -> str:
    """Return the version of this server and its commit."""
    from openai_compat.core.version import __version__

    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return f"{__version__} ({commit.stdout.strip() or 'no commit'})"


def our_command(site: Site) -> Command:
    """Return this server with every feature on, as a user runs it. The access log goes to a file."""
    environ = {
        "PYTHONPATH": str(ROOT),
        "HOST": "127.0.0.1",
        "PORT": str(site.port),
        "WEB_CONCURRENCY": "1",
        "API_KEYS": f"sk-someone-else, {KEY}",
        "OPENAI_API_KEY": UPSTREAM_KEY,
        "OPENAI_BASE_URL": site.upstream,
    }
    return Command([sys.executable, "-m", "openai_compat", "serve"], environ)


def baseline_version() -> str:
    """Return the versions of the packages that the baseline proxy is made of."""
    return f"Flask {version('flask')}, requests {version('requests')}, gunicorn {version('gunicorn')}"


def baseline_command(site: Site) -> Command:
    """Return the baseline proxy under gunicorn with one gevent worker."""
    arguments = [sys.executable, "-m", "gunicorn", "--worker-class", "gevent", "--workers", "1"]
    arguments += ["--worker-connections", "2000", "--bind", f"127.0.0.1:{site.port}", "--backlog", "2048"]
    environ = {"PYTHONPATH": str(ROOT), "UPSTREAM": site.upstream, "UPSTREAM_KEY": UPSTREAM_KEY}
    return Command([*arguments, "--no-control-socket", "bench.baseline_proxy:app"], environ)
