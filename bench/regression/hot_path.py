"""The hot path in one process, for `guard`: this server's or the plain proxy's, under a counter of instructions.

    valgrind --tool=callgrind --instr-atstart=no ... python -m bench.regression.hot_path chat COUNT -- ...

gunicorn's own worker class handles one connection, as it would after accepting it; the client is a process of its own.
Counting starts when all is warm and stops before anything is cleaned up.
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
    """The port of a worker made as `gunicorn` makes it of the same arguments."""
    gunicorn = WSGIApplication("%(prog)s", prog="gunicorn")
    configuration: Any = gunicorn.cfg
    log = configuration.logger_class(configuration)
    worker = configuration.worker_class(1, os.getppid(), [], gunicorn, 30, configuration, log)
    if hasattr(worker, "adapt_gunicorn"):  # this server's own, at the start of its process
        worker.adapt_gunicorn()
    worker.wsgi = gunicorn.wsgi()
    configuration.post_worker_init(worker)
    listener = socket.create_server(("127.0.0.1", 0))
    gevent.spawn(lambda: worker.handle(listener, *listener.accept()))
    port: int = listener.getsockname()[1]
    return port


class Client:
    """`single_client` in a process of its own, so that its instructions are not counted."""

    def __init__(self, kind: str, port: int) -> None:
        # An interpreter of its own, and nothing that callgrind would follow: it counts the parent alone.
        command = [sys.executable, "-m", "bench.regression.single_client", kind, str(port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def exchange(self, count: int) -> None:
        """So many requests one after the other, each answered whole."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"%d\n" % count)
        if self._process.stdout.readline() != b"done\n":
            raise SystemExit("the client was not answered as it should")


def count_instructions(state: str) -> None:
    """Tells callgrind; this process must run meanwhile, for it to listen."""
    command = ["callgrind_control", "-i", state, str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as control:
        while control.poll() is None:
            time.sleep(0.01)


def main() -> None:
    kind, count = sys.argv[1], int(sys.argv[2])
    sys.argv = ["gunicorn", *sys.argv[sys.argv.index("--") + 1 :]]
    client = Client(kind, listen())
    client.exchange(WARM_UP[kind])
    # One walk of the collector through everything that was imported would outweigh many requests.
    gc.collect()
    gc.freeze()
    count_instructions("on")
    client.exchange(count)
    count_instructions("off")
    os._exit(0)


if __name__ == "__main__":
    main()
