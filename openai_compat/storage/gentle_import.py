"""Import of large libraries while the other threads of the process serve streams."""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from types import ModuleType
from typing import Final

SWITCH_INTERVAL: Final = 0.0005
"""Seconds after which the import lets other threads run. Python's default, 5 ms, is added to each of their events."""


def import_gently(*names: str) -> list[ModuleType]:
    """Import modules with brief turns for the other threads, and return them.

    The garbage collector is off meanwhile, because it would stop all threads for up to 20 ms to scan objects that
    remain. They are exempt from later collections too, as those that exist at the start of a worker.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.disable()
    try:
        return [import_module(name) for name in names]
    finally:
        gc.freeze()
        gc.enable()
        sys.setswitchinterval(interval)
