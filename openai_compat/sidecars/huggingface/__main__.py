"""`python -m openai_compat.sidecars.huggingface FOLDER`, with the engine's configuration on its standard input.

The server's workers start it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from openai_compat.backends.huggingface.engine_config import EnginePlan
from openai_compat.backends.huggingface.runtime_dir import EngineFolder, try_to_hold


def main() -> None:
    plan = EnginePlan.from_json(sys.stdin.read())
    folder = EngineFolder(Path(sys.argv[1]), plan.identity)
    if try_to_hold(folder.engine_lock) is None:
        return  # another worker was quicker: its engine serves all
    from .server import EngineServer

    EngineServer(plan, folder).run()


if __name__ == "__main__":
    main()
