"""Folders of a coding agent that copies the text of `in.txt` to `out.txt`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SECRET: Final = "the word is heron"
"""Text that only an agent that reads `in.txt` knows."""


def create_folders(parent: Path) -> tuple[Path, Path]:
    """Return a folder to work in, which has `in.txt`, and an empty home."""
    work, home = parent / "work", parent / "home"
    work.mkdir()
    home.mkdir()
    (work / "in.txt").write_text(f"{SECRET}\n")
    return work, home
