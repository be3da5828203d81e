"""llama.cpp's own server as it runs elsewhere, with the small chat model, started without this project's server.

    python -m tests.support.llama_server TEMPLATE

prints its address, and ends when its standard input is closed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openai_compat.sidecars.llama_cpp.bundled_models import CHAT_FILE, chat_folder

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def running_llama_server(template: Path) -> Iterator[str]:
    """Yield the URL of a server with two slots of 1,024 tokens, which ends with the `with` block."""
    command = [sys.executable, "-m", "tests.support.llama_server", str(template)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = next((line.strip() for line in process.stdout if line.startswith("http://")), "")
            assert url, "llama.cpp's server did not start"
            yield url
        finally:
            process.stdin.close()


def main() -> None:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(chat_folder() / CHAT_FILE)
    parameters.chat_template = Path(sys.argv[1]).read_text()
    parameters.hostnames, parameters.port = ["127.0.0.1"], 0
    parameters.n_parallel, parameters.n_ctx = 2, 2 * 1024
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.verbosity, parameters.ui = 1, False
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)  # llama.cpp would wait for its open connections


if __name__ == "__main__":
    main()
