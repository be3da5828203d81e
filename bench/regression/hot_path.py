"""Hot path of this server or of the baseline proxy in one process, for counting its instructions.

    valgrind --tool=callgrind --instr-atstart=no ... python -m bench.regression.hot_path chat|stream COUNT -- ARGUMENTS

ARGUMENTS are those of gunicorn. Its worker class handles one connection as it would after accepting it. The client
runs in a process of its own. Counting starts after a warm-up and stops before any cleanup.
"""

# ruff: noqa: E402 - gevent patches the standard library before anything else is imported
from gevent import monkey

monkey.patch_all()

import gc
import os
import socket
import subprocess
import sys
import time
from typing import Any, Final

import gevent
from gunicorn.app.wsgiapp import WSGIApplication

WARM_UP: Final = {"chat": 40, "stream": 2}


def listen() -> int:
    """Start a worker made of gunicorn's arguments, as gunicorn starts it, and return its port."""
    gunicorn = WSGIApplication("%(prog)s", prog="gunicorn")
    configuration: Any = gunicorn.cfg
    log = configuration.logger_class(configuration)
    worker = configuration.worker_class(1, os.getppid(), [], gunicorn, 30, configuration, log)
    if hasattr(worker, "adapt_gunicorn"):  # only this server's worker class has it
        worker.adapt_gunicorn()
    worker.wsgi = gunicorn.wsgi()
    configuration.post_worker_init(worker)
    if state := getattr(worker.wsgi, "extensions", {}).get("openai_compat"):
        # It samples each second, which is fifty times as often for the slow process that callgrind runs.
        state.metrics.close()
    listener = socket.create_server(("127.0.0.1", 0))
    gevent.spawn(lambda: worker.handle(listener, *listener.accept()))
    port: int = listener.getsockname()[1]
    return port


class Client:
    """A process that runs `single_client`, so that the client's instructions are not counted."""

    def __init__(self, kind: str, port: int) -> None:
        # callgrind follows no child processes here, it counts the parent alone.
        command = [sys.executable, "-m", "bench.regression.single_client", kind, str(port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def exchange(self, count: int) -> None:
        """Send `count` requests one after the other and wait for their complete answers.

        Raises:
            SystemExit: one of them failed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"%d\n" % count)
        if self._process.stdout.readline() != b"done\n":
            raise SystemExit("a request of the client failed")


def set_counting(state: str) -> None:
    """Turn the counting of instructions `on` or `off`. This process keeps running until callgrind has reacted."""
    command = ["callgrind_control", "-i", state, str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as control:
        while control.poll() is None:
            time.sleep(0.01)


def main() -> None:
    """Warm up, then count the instructions of `COUNT` requests."""
    kind, count = sys.argv[1], int(sys.argv[2])
    sys.argv = ["gunicorn", *sys.argv[sys.argv.index("--") + 1 :]]
    client = Client(kind, listen())
    client.exchange(WARM_UP[kind])
    # One collection over everything that was imported would cost more than many requests.
    gc.collect()
    gc.freeze()
    set_counting("on")
    client.exchange(count)
    set_counting("off")
    os._exit(0)


if __name__ == "__main__":
    main()
