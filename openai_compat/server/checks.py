"""Check of gunicorn's worker class."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

GUNICORN_FILE: Final = Path(__file__).with_name("gunicorn_conf.py")


def warn_without_gevent() -> None:
    """Log a warning if gunicorn runs this server without gevent workers.

    gunicorn looks for its configuration file in the current directory and reports no missing one. The check reads
    `sys.modules`, so that it imports neither gunicorn nor gevent.
    """
    patches = sys.modules.get("gevent.monkey")
    is_patched = patches is not None and patches.is_module_patched("socket")
    if "gunicorn.arbiter" in sys.modules and not is_patched:
        log.warning(
            "gunicorn runs without gevent workers, so it serves few clients at a time and may cut streams after 30 s. "
            "Start it with -c %s",
            GUNICORN_FILE,
        )
