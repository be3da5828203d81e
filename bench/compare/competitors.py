"""Peers from the package registries, each in an environment of its own below `bench/.peers/`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Final

from bench.paths import INSTALLED as FOLDER

LITELLM_PROGRAM: Final = FOLDER / "litellm" / "bin" / "litellm"
MODULES: Final = FOLDER / "portkey" / "node_modules"
NODE_PROGRAM: Final = MODULES / "node" / "bin" / "node"
PORTKEY_PROGRAM: Final = MODULES / "@portkey-ai" / "gateway" / "build" / "start-server.js"

INSTALL_SECONDS: Final = 900


class Absent(Exception):
    """A system cannot be measured here, and why."""


def find_program(*names: str) -> str | None:
    return next((found for name in names if (found := shutil.which(name))), None)


def prepare_litellm() -> str:
    """Its newest release that the registry gives; `bench/.peers/litellm` is removed to renew it."""
    if not LITELLM_PROGRAM.exists():
        folder = FOLDER / "litellm"
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(folder / "bin" / "pip"), "--disable-pip-version-check", "-q", "install", "litellm[proxy]"])
    show = "from importlib.metadata import version; print(version('litellm'))"
    return _run([str(LITELLM_PROGRAM.with_name("python")), "-c", show]).strip()


def prepare_portkey() -> str:
    """The gateway on Node 24, on which it is about twice as fast as on the 20 that Debian has."""
    if find_program("npm") is None:
        raise Absent("npm is not installed")
    if not PORTKEY_PROGRAM.exists() or not NODE_PROGRAM.exists():
        folder = FOLDER / "portkey"
        folder.mkdir(parents=True, exist_ok=True)
        flags = ["--loglevel=error", "--no-audit", "--no-fund", "--prefix", str(folder)]
        _run(["npm", "install", *flags, "@portkey-ai/gateway", "node@24"])
    version = json.loads((MODULES / "@portkey-ai" / "gateway" / "package.json").read_text())["version"]
    return f"{version} on Node {_run([str(NODE_PROGRAM), '--version']).strip().removeprefix('v')}"


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Absent(f"{command[0]}: {error}") from error
    if done.returncode:
        raise Absent(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout
