"""Checks of how gunicorn runs this server."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

GUNICORN_FILE: Final = Path(__file__).with_name("gunicorn_conf.py")


def warn_without_gevent() -> None:
    """Says so where gunicorn runs this server with workers that do not suit it.

    It looks for its file in the folder where it is started, and says nothing when there is none. Asked of what has been
    imported, so that a process without gunicorn or gevent imports neither.
    """
    patches = sys.modules.get("gevent.monkey")
    is_patched = patches is not None and patches.is_module_patched("socket")
    if "gunicorn.arbiter" in sys.modules and not is_patched:
        log.warning(
            "gunicorn runs without gevent workers: they serve few callers at a time, and may cut streams after 30 s. "
            "Start it with -c %s",
            GUNICORN_FILE,
        )
