"""What the commands that take their time show meanwhile."""

from __future__ import annotations

import sys


def show_progress(text: str) -> None:
    """On one line of a terminal, each text in the place of the last, and '' for none; nowhere else."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
