"""Copy of the tracked files, as in a new clone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.tools import ROOT, require_tool


def make_clean_copy(folder: Path) -> Path:
    """Copy the tracked files into a folder. Skip the test if they are unknown or there is no make."""
    require_tool("make")
    if not (ROOT / ".git").exists():
        pytest.skip("without git the tracked files are unknown")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder
