"""`python -m openai_compat.sidecars.huggingface FOLDER`, with the engine's configuration on its standard input.

The server's workers start it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from openai_compat.backends.huggingface.engine_config import EngineConfig
from openai_compat.backends.huggingface.runtime_dir import RuntimeDir, try_lock


def main() -> None:
    plan = EngineConfig.from_json(sys.stdin.read())
    folder = RuntimeDir(Path(sys.argv[1]), plan.identity)
    if try_lock(folder.engine_lock) is None:
        return  # another worker was quicker: its engine serves all
    from .server import EngineServer

    EngineServer(plan, folder).run()


if __name__ == "__main__":
    main()
