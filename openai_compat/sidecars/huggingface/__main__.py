"""Entry point of the engine, `python -m openai_compat.sidecars.huggingface DIRECTORY`.

The server's workers run it and write the engine's configuration to its standard input.
"""

from __future__ import annotations

import sys
from pathlib import Path

from openai_compat.backends.huggingface.engine_config import EngineConfig
from openai_compat.backends.huggingface.runtime_dir import RuntimeDir, try_lock


def main() -> None:
    config = EngineConfig.from_json(sys.stdin.read())
    runtime_dir = RuntimeDir(Path(sys.argv[1]), config.identity)
    if try_lock(runtime_dir.engine_lock) is None:
        return  # the engine of another worker is running, and serves all
    from .server import EngineServer

    EngineServer(config, runtime_dir).run()


if __name__ == "__main__":
    main()
