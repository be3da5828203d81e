"""Folders that the benchmarks read and write."""

from __future__ import annotations

from pathlib import Path
from typing import Final

BENCH: Final = Path(__file__).parent
ROOT: Final = BENCH.parent
RESULTS: Final = BENCH / "results"
BUILD: Final = BENCH / ".build"
INSTALLED: Final = BENCH / ".competitors"
