"""llama.cpp's own server, which listens on a TCP port instead of the engine's socket.

`python -m bench.local_models.llama_server PORT` reads a `LaunchConfig` from its standard input and serves until it is
terminated. Its size of prompt batches is llama.cpp's default.
"""

from __future__ import annotations

import signal
import sys

import xllamacpp

from openai_compat.sidecars.llama_cpp.launch import LaunchConfig
from openai_compat.sidecars.llama_cpp.parameters import to_parameters


def main() -> None:
    parameters = to_parameters(LaunchConfig.from_json(sys.stdin.readline()))
    parameters.n_batch = xllamacpp.CommonParams().n_batch
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = int(sys.argv[1])
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
