"""`python -m openai_compat.engine FOLDER`, with the plan on its standard input. The server's workers start it."""

from __future__ import annotations

import sys
from pathlib import Path

from ..local.folder import EngineFolder, try_to_hold
from ..local.plan import EnginePlan


def main() -> None:
    plan = EnginePlan.from_json(sys.stdin.read())
    folder = EngineFolder(Path(sys.argv[1]), plan.identity)
    if try_to_hold(folder.engine_lock) is None:
        return  # another worker was quicker: its engine serves all
    from .server import EngineServer

    EngineServer(plan, folder).run()


if __name__ == "__main__":
    main()
