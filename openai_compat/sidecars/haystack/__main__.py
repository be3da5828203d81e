"""Entry point of the Haystack sidecar.

The server's workers run it with the runtime directory as the last argument, and write their pickled settings to its
standard input.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Final

from openai_compat.backends.haystack.sidecar_client import sidecar_identity
from openai_compat.backends.runtime_dir import RuntimeDir, try_lock
from openai_compat.core.settings import Settings
from openai_compat.sidecars.server import SidecarServer

MAX_THREADS: Final = 2048
"""Maximum number of calls, including those that wait for a slot of their pipeline. Threads are started on demand."""
UNUSED_TIMEOUT: Final = 3.0
"""Seconds without a worker before the sidecar ends. A replacement worker keeps the stored conversations."""


def main() -> None:
    """Serve the pipelines, unless the sidecar of another worker is already running."""
    settings: Settings = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by the worker that started this process
    runtime_dir = RuntimeDir(Path(sys.argv[-1]), sidecar_identity(settings))
    if try_lock(runtime_dir.sidecar_lock) is None:
        return

    def create_app() -> object:
        from .application import create_pipelines_app

        return create_pipelines_app(settings)

    server = SidecarServer(
        create_app, runtime_dir, threads=MAX_THREADS, log_level=settings.log_level, unused_timeout=UNUSED_TIMEOUT
    )
    server.run()


if __name__ == "__main__":
    main()
