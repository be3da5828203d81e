"""Runs what documents show: shell commands, Python and JavaScript, as a reader would who pastes them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from openai_compat.config import settings_table
from tests.support.tools import NODE_DIR, require_node, require_tool

SECONDS = 30


def run_bash(text: str, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """What the commands print; the first one that fails fails the test, with what it said."""
    require_tool("curl")
    return _run(["bash", "-euo", "pipefail", "-c", text], folder, text, environment)


def run_python(text: str, folder: Path) -> str:
    """What the program prints."""
    return _run([sys.executable, "-c", text], folder, text)


def run_javascript(text: str, folder: Path) -> str:
    """What the module prints; it finds the official client as an installed package."""
    node = require_node()
    modules = folder / "node_modules"
    if not modules.exists():
        modules.symlink_to(NODE_DIR / "node_modules")
    script = folder / "snippet.mjs"
    script.write_text(text)
    return _run([str(node), str(script)], folder, text)


def plain_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This machine's environment, without what configures the server, Python, or a `make` within `make test`, and
    without what only a machine with the extra `local` has.
    """
    settings = {name for setting in settings_table.SETTINGS for name in setting.names}
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in settings and not name.startswith(("PYTHON", "MAKE", "MFLAGS"))
    }
    inherited["INCLUDE_DEFAULT_MODELS"] = "false"
    return {**inherited, "NO_PROXY": "localhost,127.0.0.1", "no_proxy": "localhost,127.0.0.1", **(more or {})}


def _run(command: Sequence[str], folder: Path, shown: str, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=plain_environment(environment),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, f"this failed:\n{shown}\nand said:\n{done.stdout}{done.stderr}"
    return done.stdout
