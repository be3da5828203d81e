"""A PostgreSQL server on a Unix socket, so that no port has to be chosen."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.tools import require_tool
from tests.support.waiting import wait_until

FOLDERS = "/usr/lib/postgresql"
"""Debian's programs are in a folder for each version, and not in the PATH."""
OPTIONS = ("-c", "fsync=off", "-c", "listen_addresses=", "-c", "max_connections=40")


@dataclass
class PostgresServer:
    """Server whose databases are deleted with its folder. `stop` and `start` are an outage and its end."""

    folder: Path
    programs: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def create_database(self, name: str) -> str:
        """Create an empty database and return its URL."""
        self._psql("-c", f"CREATE DATABASE {name}")
        return self.url_of(name)

    def start(self) -> None:
        command = [str(self.programs / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder), *OPTIONS]
        log = self.folder / "log"
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **_unprivileged())
        wait_until(lambda: self._psql("-c", "SELECT 1", check=False), lambda: f"PostgreSQL answers:\n{log.read_text()}")

    def ensure_started(self) -> None:
        """Start the server if it is stopped."""
        if self.process is None or self.process.poll() is not None:
            self.start()

    def stop(self) -> None:
        """Stop at once, as after a crash."""
        self._signal(signal.SIGQUIT)
        assert self.process is not None
        self.process.wait(10)

    def pause(self) -> None:
        """Stop answering, with all connections open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the processes of the connections, and then the server itself."""
        assert self.process is not None
        main = self.process.pid
        for pid in (*map(int, Path(f"/proc/{main}/task/{main}/children").read_text().split()), main):
            with suppress(ProcessLookupError):  # a connection that has just ended
                os.kill(pid, number)

    def _psql(self, *arguments: str, check: bool = True) -> bool:
        command = [str(self.programs / "psql"), "-h", str(self.folder), "-U", "postgres", "-q", "-o", "/dev/null"]
        done = subprocess.run([*command, *arguments], capture_output=True, check=check)
        return done.returncode == 0


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Run a server in a temporary folder, as another user if this one is root, which PostgreSQL refuses."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
    folder.chmod(0o755)
    server = PostgresServer(folder, programs)
    try:
        initdb = [str(programs / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        subprocess.run([*initdb, "--no-sync", "--locale=C"], check=True, capture_output=True, **_unprivileged())
        server.start()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    versions = sorted(Path(FOLDERS).glob("*/bin"), key=lambda path: int(path.parent.name))
    return versions[-1] if versions else require_tool("initdb").parent


def _unprivileged() -> dict[str, Any]:
    """Return options for `subprocess`."""
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
