"""Functions that run the commands and programs that documents show, as a reader would who pastes them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from openai_compat.config import settings_table
from tests.support.tools import NODE_DIR, require_node, require_tool

TIMEOUT = 30


def run_bash(text: str, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Return the output of the commands. Fail with their output if one of them fails."""
    require_tool("curl")
    return _run(["bash", "-euo", "pipefail", "-c", text], folder, text, environment)


def run_python(text: str, folder: Path) -> str:
    """Return the output of the program."""
    return _run([sys.executable, "-c", text], folder, text)


def run_javascript(text: str, folder: Path) -> str:
    """Return the output of the module, which can import the official client."""
    node = require_node()
    modules = folder / "node_modules"
    if not modules.exists():
        modules.symlink_to(NODE_DIR / "node_modules")
    script = folder / "snippet.mjs"
    script.write_text(text)
    return _run([str(node), str(script)], folder, text)


def plain_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment without the settings of the server, Python and make, and without preset models.

    Preset models depend on the installed extras.
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
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, f"failed:\n{shown}\nwith the output:\n{done.stdout}{done.stderr}"
    return done.stdout
