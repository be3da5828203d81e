"""nginx with the configuration of `deploy/`, in front of any server.

    with nginx_in_front_of("http://127.0.0.1:8000") as nginx:
        requests.get(nginx.url + "/healthz")

It runs without root, because the port, the upstream and the folders are replaced.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.tools import ROOT, require_tool
from tests.support.waiting import wait_until

DEPLOY = ROOT / "deploy"


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

    def wait_for_access(self, text: str) -> str:
        """Return the line of the access log that contains `text`. nginx writes it after the response."""
        lines: list[str] = []

        def is_logged() -> bool:
            log = (self.folder / "openai-compat.log").read_text()
            lines.extend(line for line in log.splitlines() if text in line)
            return bool(lines)

        wait_until(is_logged, f"{text!r} in the access log")
        return lines[0]

    def cut_connections(self) -> None:
        """Kill the worker process, which breaks all connections. The master starts another one."""
        master = self.process.pid
        for worker in Path(f"/proc/{master}/task/{master}/children").read_text().split():
            os.kill(int(worker), signal.SIGKILL)


@contextmanager
def nginx_in_front_of(
    upstream_url: str, replace: dict[str, str] | None = None, *, main: dict[str, str] | None = None
) -> Iterator[Nginx]:
    """Run nginx in front of `upstream_url` for the `with` block.

    `replace` maps texts of the site file, and `main` those of nginx.conf, to replacements. Each text must exist.
    """
    program = require_tool("nginx")
    with tempfile.TemporaryDirectory(prefix="nginx-", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        render(folder, port, upstream_url, replace or {}, main or {})
        # As root, nginx would run as another user, who cannot write to the folder.
        directives = "daemon off; user root;" if os.geteuid() == 0 else "daemon off;"
        command = [str(program), "-p", name, "-c", f"{name}/nginx.conf", "-e", f"{name}/error.log", "-g", directives]
        nginx = Nginx(port, folder, subprocess.Popen(command, stderr=subprocess.PIPE))
        try:
            _wait_until_it_listens(nginx)
            yield nginx
        finally:
            nginx.process.terminate()  # "fast shutdown": open streams are cut
            nginx.process.communicate(timeout=10)


def render(folder: Path, port: int, upstream_url: str, replace: dict[str, str], main_replace: dict[str, str]) -> None:
    """Write nginx.conf and nginx-site.conf, changed for a user without root, into `folder`."""
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
    """Return a free port for a program that cannot inherit a socket.

    It is below the ephemeral ports, one of which the system could give to another test's server before the program
    starts.
    """
    while True:
        port = random.randint(15_000, 32_000)
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _wait_until_it_listens(nginx: Nginx) -> None:
    def is_listening() -> bool:
        if nginx.process.poll() is not None:
            raise AssertionError(f"nginx did not start: {nginx.process.communicate()[1].decode()}")
        with suppress(OSError):
            socket.create_connection(nginx.address, timeout=1).close()
            return True
        return False

    wait_until(is_listening, lambda: f"nginx listens:\n{nginx.error_log()}")
