"""The systems that are compared: how each is started, one process on one core, and what it is sent."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.compare import competitors as peers
from bench.compare.load import send_once

from .paths import BUILD, ROOT
from .processes import Cores, Running, free_port
from .workloads import KEY, MODEL, bodies, to_request, write_requests

READY_SECONDS: Final = 120
UPSTREAM_KEY: Final = "sk-upstream-0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Site:
    """Where a system runs: a folder of its own, the port it shall listen on, the port of the upstream."""

    folder: Path
    port: int
    upstream_port: int

    @property
    def upstream(self) -> str:
        return f"http://127.0.0.1:{self.upstream_port}/v1"


@dataclass(frozen=True, slots=True)
class Start:
    """A command with its environment, besides what every process here gets."""

    command: list[str]
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class System:
    """`prepare` installs what is missing and gives the version, or raises `peers.Absent` with the reason."""

    name: str
    title: str
    prepare: Callable[[], str]
    start: Callable[[Site], Start]
    headers: Callable[[Site], Mapping[str, str]] = lambda _site: {}


@dataclass(frozen=True, slots=True)
class Live:
    """A system that answers. `system` is None for the upstream itself, loaded directly."""

    system: System | None
    site: Site
    running: Running
    requests: Mapping[str, Path]
    seconds_to_first_answer: float


class StartError(Exception):
    """A system did not come to answer."""


def launch(system: System, folder: Path, upstream_port: int, cores: Cores) -> Live:
    """Starts it on the server's core and waits for its first answer."""
    site = Site(folder, free_port(), upstream_port)
    folder.mkdir(parents=True, exist_ok=True)
    requests = write_requests(folder, site.port, system.headers(site))
    start = system.start(site)
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8", **start.environ}
    began = time.monotonic()
    running = Running(cores.on_server(start.command), folder, environ, "server.log")
    first = requests["1kB"].read_bytes()
    while (status := send_once(site.port, first, READY_SECONDS)) != 200:
        is_late = time.monotonic() - began > READY_SECONDS
        if is_late or running.process.poll() is not None:
            running.stop()
            raise StartError(f"{system.title} answered {status or 'nothing'}:\n{running.end_of_log()}")
        time.sleep(0.005)
    return Live(system, site, running, requests, time.monotonic() - began)


def launch_upstream(folder: Path) -> Live:
    """The upstream, on the load's cores."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    running = Running([str(BUILD / "stream_upstream"), str(port)], folder, {}, "upstream.log")
    first = to_request(bodies()["1kB"], port, {})
    began = time.monotonic()
    while send_once(port, first, 5) != 200:
        if time.monotonic() - began > 5:
            raise StartError(running.end_of_log())
        time.sleep(0.005)
    requests = write_requests(folder, port, {})
    return Live(None, Site(folder, port, port), running, requests, time.monotonic() - began)


NGINX_CONFIGURATION: Final = """
daemon off;
user {user};
worker_processes 1;
worker_rlimit_nofile 16384;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 8192; }}
http {{
    access_log {folder}/access.log combined;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 32m;
    client_body_buffer_size 256k;
    upstream bench {{ server 127.0.0.1:{upstream_port}; keepalive 1024; }}
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location /v1/ {{
            proxy_pass http://bench;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Authorization "Bearer {key}";
            proxy_set_header X-Request-Id $request_id;
            proxy_buffering off;
            proxy_read_timeout 300s;
        }}
    }}
}}
"""


def _nginx_program() -> str:
    found = peers.find_program("nginx", "/usr/sbin/nginx")
    if found is None:
        raise peers.Absent("nginx is not installed (Debian: apt install nginx)")
    return found


def nginx_version() -> str:
    output = subprocess.run([_nginx_program(), "-v"], capture_output=True, text=True, check=True)
    return output.stderr.strip().rpartition("/")[2]


def start_nginx(site: Site) -> Start:
    path = site.folder / "nginx.conf"
    values: dict[str, object] = {"folder": site.folder, "port": site.port, "upstream_port": site.upstream_port}
    values |= {"key": UPSTREAM_KEY, "user": getpass.getuser()}  # its files are in a folder of this user's
    path.write_text(NGINX_CONFIGURATION.format(**values))
    return Start([_nginx_program(), "-c", str(path), "-e", str(site.folder / "error.log")])


def our_version() -> str:
    from openai_compat.core.version import __version__

    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return f"{__version__} ({commit.stdout.strip() or 'no commit'})"


def start_ours(site: Site) -> Start:
    """As a user would run it: keys, validation, request ids, token usage, and the access log, which goes to a file."""
    environ = {
        "PYTHONPATH": str(ROOT),
        "HOST": "127.0.0.1",
        "PORT": str(site.port),
        "WEB_CONCURRENCY": "1",
        "API_KEYS": f"sk-someone-else, {KEY}",
        "OPENAI_API_KEY": UPSTREAM_KEY,
        "OPENAI_BASE_URL": site.upstream,
    }
    return Start([sys.executable, "-m", "openai_compat", "serve"], environ)


def plain_version() -> str:
    from importlib.metadata import version

    return f"Flask {version('flask')}, requests {version('requests')}, gunicorn {version('gunicorn')}"


def start_plain(site: Site) -> Start:
    command = [sys.executable, "-m", "gunicorn", "--worker-class", "gevent", "--workers", "1"]
    command += ["--worker-connections", "2000", "--bind", f"127.0.0.1:{site.port}", "--backlog", "2048"]
    environ = {"PYTHONPATH": str(ROOT), "UPSTREAM": site.upstream, "UPSTREAM_KEY": UPSTREAM_KEY}
    return Start([*command, "--no-control-socket", "bench.baseline_proxy:app"], environ)


LITELLM_CONFIGURATION: Final = """
model_list:
  - model_name: {model}
    litellm_params:
      model: openai/{model}
      api_base: {upstream}
      api_key: {upstream_key}
general_settings:
  master_key: {key}
litellm_settings:
  telemetry: false
"""


def start_litellm(site: Site) -> Start:
    path = site.folder / "config.yaml"
    values = {"model": MODEL, "upstream": site.upstream, "upstream_key": UPSTREAM_KEY, "key": KEY}
    path.write_text(LITELLM_CONFIGURATION.format(**values))
    command = [str(peers.LITELLM_PROGRAM), "--config", str(path), "--host", "127.0.0.1", "--port", str(site.port)]
    environ = {
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # its price list is fetched from the network otherwise
        "LITELLM_MODE": "PRODUCTION",
    }
    return Start([*command, "--num_workers", "1", "--telemetry", "False"], environ)


def start_portkey(site: Site) -> Start:
    command = [str(peers.NODE_PROGRAM), str(peers.PORTKEY_PROGRAM), f"--port={site.port}", "--headless"]
    return Start(command, {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"})


def portkey_headers(site: Site) -> Mapping[str, str]:
    return {"x-portkey-provider": "openai", "x-portkey-custom-host": site.upstream}


SYSTEMS: Final = {
    system.name: system
    for system in (
        System("nginx", "nginx", nginx_version, start_nginx),
        System("ours", "openai-compat", our_version, start_ours),
        System("plain", "Flask + requests, 30 lines", plain_version, start_plain),
        System("litellm", "LiteLLM", peers.prepare_litellm, start_litellm),
        System("portkey", "Portkey", peers.prepare_portkey, start_portkey, portkey_headers),
    )
}
