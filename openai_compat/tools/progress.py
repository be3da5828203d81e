"""Progress line of commands that take a while."""

from __future__ import annotations

import sys


def show_progress(text: str) -> None:
    """Replace the progress line of the terminal with `text`, or clear it if `text` is empty.

    Nothing is written unless standard error is a terminal.
    """
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
