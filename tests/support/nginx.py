"""A real nginx with the project's own configuration, in front of any server.

    with nginx_in_front_of("http://127.0.0.1:8000") as nginx:
        requests.get(nginx.url + "/healthz")

Runs without root: listening port, upstream and folders are replaced, everything else is as shipped.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.tools import ROOT, require_tool

DEPLOY = ROOT / "deploy"
STARTS_WITHIN = 10.0


@dataclass(frozen=True)
class Nginx:
    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def error_log(self) -> str:
        return (self.folder / "error.log").read_text()

    def wait_for_access(self, words: str) -> str:
        """The line of the access log with these words; it is written after the answer."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for line in (self.folder / "openai-compat.log").read_text().splitlines():
                if words in line:
                    return line
            time.sleep(0.01)
        raise AssertionError(f"nobody has logged {words!r}")

    def cut_connections(self) -> None:
        """Breaks off everything that is under way: the working process is killed, and another one takes its place."""
        master = self.process.pid
        for worker in Path(f"/proc/{master}/task/{master}/children").read_text().split():
            os.kill(int(worker), signal.SIGKILL)


@contextmanager
def nginx_in_front_of(
    upstream_url: str, replace: dict[str, str] | None = None, *, main: dict[str, str] | None = None
) -> Iterator[Nginx]:
    """Starts nginx before `upstream_url`; `replace` changes other texts of the site file, `main` of nginx.conf; each
    must exist.
    """
    program = require_tool("nginx")
    with tempfile.TemporaryDirectory(prefix="nginx-", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        render(folder, port, upstream_url, replace or {}, main or {})
        command = [str(program), "-p", name, "-c", f"{name}/nginx.conf", "-e", f"{name}/error.log", "-g", "daemon off;"]
        nginx = Nginx(port, folder, subprocess.Popen(command, stderr=subprocess.PIPE))
        try:
            _wait_until_it_listens(nginx)
            yield nginx
        finally:
            nginx.process.terminate()  # "fast shutdown": open streams are cut
            nginx.process.communicate(timeout=10)


def render(folder: Path, port: int, upstream_url: str, replace: dict[str, str], main_replace: dict[str, str]) -> None:
    """Writes nginx.conf and nginx-site.conf into `folder`, fit for an ordinary user's test."""
    main = _replaced(
        (DEPLOY / "nginx.conf").read_text(),
        {
            "/run/nginx.pid": f"{folder}/nginx.pid",
            "/var/log/nginx/": f"{folder}/",
            "/var/lib/nginx/": f"{folder}/temp-",
            "worker_processes auto;": "worker_processes 1;",
            **main_replace,
        },
    )
    site = _replaced(
        (DEPLOY / "nginx-site.conf").read_text(),
        {
            "    listen 80;": f"    listen 127.0.0.1:{port};",
            "server 127.0.0.1:8000;": f"server {urlsplit(upstream_url).netloc};",
            **replace,
        },
    )
    (folder / "nginx.conf").write_text(main)
    (folder / "nginx-site.conf").write_text(site)


def _replaced(text: str, replacements: dict[str, str]) -> str:
    for old, new in replacements.items():
        assert old in text, f"{old!r} is no longer in the configuration"
        text = text.replace(old, new)
    return text


def free_port() -> int:
    """A port for a program that cannot be handed a socket.

    Not one of those that the system gives out by itself: another test's server, running beside this one, could be given
    it before the program takes it.
    """
    while True:
        port = random.randint(15_000, 32_000)
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _wait_until_it_listens(nginx: Nginx) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline:
        if nginx.process.poll() is not None:
            raise AssertionError(f"nginx did not start: {nginx.process.communicate()[1].decode()}")
        try:
            socket.create_connection(nginx.address, timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"nginx did not listen within {STARTS_WITHIN} s: {nginx.error_log()}")
