"""Entry point of the process of one model, `python -m openai_compat.sidecars.llama_cpp`.

The engine runs it and writes a `LaunchConfig` to its standard input. The process writes a `ServerState` to its standard
output when the model answers calls, and ends when its standard input is closed.
"""

from __future__ import annotations

import os
import sys
import threading

from .launch import LaunchConfig, ServerState, peak_memory


def main() -> None:
    """Serve the model until the engine ends."""
    config = LaunchConfig.from_json(sys.stdin.readline())
    engine = threading.Thread(target=_end_with_engine, daemon=True)
    engine.start()
    output = os.dup(1)
    os.dup2(2, 1)  # what llama.cpp prints belongs in the log
    from .parameters import start_server

    try:
        _server = start_server(config)  # it serves as long as it is referred to
    except RuntimeError as error:
        sys.exit(f"llama.cpp cannot serve the model '{config.name}': {error}")
    with os.fdopen(output, "w") as file:
        file.write(ServerState(peak_memory()).to_json() + "\n")
    engine.join()


def _end_with_engine() -> None:
    """End the process when the engine ends or closes the model, also while it is loaded."""
    while os.read(0, 4096):  # `sys.stdin` has a lock, which the end of the main thread would wait for
        pass
    os._exit(0)  # llama.cpp would wait for its open connections


if __name__ == "__main__":
    main()
