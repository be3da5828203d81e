"""Programs that some tests need: where they are, or why the test is skipped.

On a person's machine a missing program skips the test and says so. In CI (the variable `CI` is set) it fails the test:
there, a skipped test is one that nobody knows is missing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
NODE_DIR = ROOT / "tests" / "e2e" / "clients" / "node"

OLDEST_NODE = 22
"""The official Node client asks for it."""

# Where Debian puts servers, which is not on everybody's path.
ELSEWHERE = "/usr/sbin:/usr/local/sbin:/sbin"


def is_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def require_tool(name: str) -> Path:
    """The program's path; skips the calling test where there is none, or fails it in CI."""
    found = shutil.which(name) or shutil.which(name, path=ELSEWHERE)
    return Path(found) if found else _missing(f"{name} is not installed")


def require_node() -> Path:
    """A Node that runs the official client, which is in `NODE_DIR/node_modules`."""
    if not (NODE_DIR / "node_modules" / "openai").is_dir():
        _missing("the official Node client is not installed (`make test` does it where npm is)")
    installed = NODE_DIR / "node_modules" / ".bin" / "node"
    if installed.exists():
        return installed
    on_path = require_tool("node")
    version = subprocess.run([on_path, "--version"], capture_output=True, text=True, check=True).stdout
    major = re.match(r"v(\d+)\.", version)
    if major is None or int(major[1]) < OLDEST_NODE:
        _missing(f"{on_path} is {version.strip()}, and the official client needs Node {OLDEST_NODE}")
    return on_path


def require_next_build(folder: Path) -> None:
    """The Next.js application of `folder`, built: that takes longer than a test may."""
    if not (folder / ".next" / "BUILD_ID").is_file():
        _missing(f"{folder.name} is not built (`make test` does it where npm is)")


def _missing(reason: str) -> NoReturn:
    if is_ci():
        pytest.fail(f"{reason}, and in CI nothing may be missing", pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def require_extra(package: str) -> None:
    """A package of an extra; skips the calling test where it is not installed, or fails it in CI."""
    if find_spec(package) is None:
        _missing(f"the package {package} is not installed")
