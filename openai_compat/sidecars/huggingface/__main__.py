"""Entry point of the engine, `python -m openai_compat.sidecars.huggingface DIRECTORY`.

The server's workers run it and write the engine's configuration to its standard input.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from openai_compat.backends.local.engine_config import EngineConfig
from openai_compat.backends.runtime_dir import RuntimeDir, try_lock

SPARE_THREADS: Final = 32
"""Threads for requests about states, and for calls that are refused because a model's queue is full."""
UNUSED_TIMEOUT: Final = 15.0
"""Seconds without a worker before the engine ends, because loading its models again takes long."""


def main() -> None:
    """Serve the models, unless the engine of another worker is already running."""
    config = EngineConfig.from_json(sys.stdin.read())
    runtime_dir = RuntimeDir(Path(sys.argv[1]), config.identity)
    if try_lock(runtime_dir.sidecar_lock) is None:
        return
    from openai_compat.sidecars.server import SidecarServer

    def create_app() -> object:
        from .application import create_engine_app

        return create_engine_app(config, runtime_dir.path)

    threads = SPARE_THREADS + sum(config.capacity(model) for model in config.models)
    server = SidecarServer(
        create_app, runtime_dir, threads=threads, log_level=config.log_level, unused_timeout=UNUSED_TIMEOUT
    )
    server.run()


if __name__ == "__main__":
    main()
