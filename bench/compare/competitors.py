"""Systems that this server is compared with. LiteLLM and Portkey are installed below `bench/.competitors/`."""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from bench.paths import INSTALLED
from bench.processes import find_program
from bench.systems import (
    UPSTREAM_KEY,
    Command,
    Site,
    System,
    baseline_command,
    baseline_version,
    our_command,
    our_version,
)
from bench.workloads import KEY, MODEL

LITELLM_PROGRAM: Final = INSTALLED / "litellm" / "bin" / "litellm"
MODULES: Final = INSTALLED / "portkey" / "node_modules"
NODE_PROGRAM: Final = MODULES / "node" / "bin" / "node"
PORTKEY_PROGRAM: Final = MODULES / "@portkey-ai" / "gateway" / "build" / "start-server.js"
INSTALL_TIMEOUT: Final = 900


class NotInstalled(Exception):
    """A system is not installed and cannot be, with the reason."""


def prepare_litellm() -> str:
    """Install the newest release of LiteLLM and return its version.

    An installed one is kept. Remove `bench/.competitors/litellm` to update it.

    Raises:
        NotInstalled: pip failed.
    """
    if not LITELLM_PROGRAM.exists():
        folder = INSTALLED / "litellm"
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(folder / "bin" / "pip"), "--disable-pip-version-check", "-q", "install", "litellm[proxy]"])
    show = "from importlib.metadata import version; print(version('litellm'))"
    return _run([str(LITELLM_PROGRAM.with_name("python")), "-c", show]).strip()


def prepare_portkey() -> str:
    """Install Portkey's gateway and Node 24, and return their versions.

    On Node 24 the gateway is about twice as fast as on Debian's Node 20.

    Raises:
        NotInstalled: npm is missing or failed.
    """
    if find_program("npm") is None:
        raise NotInstalled("npm is not installed")
    if not PORTKEY_PROGRAM.exists() or not NODE_PROGRAM.exists():
        folder = INSTALLED / "portkey"
        folder.mkdir(parents=True, exist_ok=True)
        flags = ["--loglevel=error", "--no-audit", "--no-fund", "--prefix", str(folder)]
        _run(["npm", "install", *flags, "@portkey-ai/gateway", "node@24"])
    version = json.loads((MODULES / "@portkey-ai" / "gateway" / "package.json").read_text())["version"]
    return f"{version} on Node {_run([str(NODE_PROGRAM), '--version']).strip().removeprefix('v')}"


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"{command[0]}: {error}") from error
    if done.returncode:
        raise NotInstalled(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


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
    found = find_program("nginx", "/usr/sbin/nginx")
    if found is None:
        raise NotInstalled("nginx is not installed (Debian: apt install nginx)")
    return found


def nginx_version() -> str:
    """Return the version of the installed nginx.

    Raises:
        NotInstalled: there is none.
    """
    output = subprocess.run([_nginx_program(), "-v"], capture_output=True, text=True, check=True)
    return output.stderr.strip().rpartition("/")[2]


def nginx_command(site: Site) -> Command:
    """Write the configuration and return nginx as a reverse proxy with one worker and no buffering of responses."""
    path = site.folder / "nginx.conf"
    values: dict[str, object] = {"folder": site.folder, "port": site.port, "upstream_port": site.upstream_port}
    values |= {"key": UPSTREAM_KEY, "user": getpass.getuser()}  # nginx writes into a folder of this user
    path.write_text(NGINX_CONFIGURATION.format(**values))
    return Command([_nginx_program(), "-c", str(path), "-e", str(site.folder / "error.log")])


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


def litellm_command(site: Site) -> Command:
    """Write the configuration and return LiteLLM's proxy with one worker, a master key and no database."""
    path = site.folder / "config.yaml"
    values = {"model": MODEL, "upstream": site.upstream, "upstream_key": UPSTREAM_KEY, "key": KEY}
    path.write_text(LITELLM_CONFIGURATION.format(**values))
    arguments = [str(LITELLM_PROGRAM), "--config", str(path), "--host", "127.0.0.1", "--port", str(site.port)]
    environ = {
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # without this it downloads its price list
        "LITELLM_MODE": "PRODUCTION",
    }
    return Command([*arguments, "--num_workers", "1", "--telemetry", "False"], environ)


def portkey_command(site: Site) -> Command:
    """Return Portkey's gateway on Node."""
    arguments = [str(NODE_PROGRAM), str(PORTKEY_PROGRAM), f"--port={site.port}", "--headless"]
    return Command(arguments, {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"})


def portkey_headers(site: Site) -> Mapping[str, str]:
    """Return the headers by which a request to Portkey names its upstream."""
    return {"x-portkey-provider": "openai", "x-portkey-custom-host": site.upstream}


SYSTEMS: Final = {
    system.name: system
    for system in (
        System("nginx", "nginx", nginx_version, nginx_command),
        System("ours", "openai-compat", our_version, our_command),
        System("plain", "Flask + requests, 30 lines", baseline_version, baseline_command),
        System("litellm", "LiteLLM", prepare_litellm, litellm_command),
        System("portkey", "Portkey", prepare_portkey, portkey_command, portkey_headers),
    )
}
"""All systems of the comparison, in the order of its tables."""
