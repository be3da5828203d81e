"""The hot path in one process, for `guard`: this server's or the plain proxy's, under a counter of instructions.

    valgrind --tool=callgrind --instr-atstart=no ... python -m bench.hot_path chat|stream COUNT -- GUNICORN_ARGUMENTS

gunicorn's own worker class handles one connection, as it would after accepting it; the client is the other end of the
socket. Counting starts when all is warm and stops before anything is cleaned up.
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

from .work import bodies, to_request, to_stream_body

WARM_UP: Final = {"chat": 40, "stream": 2}
STREAM_INTERVAL_MS: Final = 30
"""Longer than an event takes under the counter, so that events come one by one in every run."""


def connect() -> socket.socket:
    """A connection to a worker made as `gunicorn` makes it of the same arguments."""
    gunicorn = WSGIApplication("%(prog)s", prog="gunicorn")
    configuration: Any = gunicorn.cfg
    log = configuration.logger_class(configuration)
    worker = configuration.worker_class(1, os.getppid(), [], gunicorn, 30, configuration, log)
    if hasattr(worker, "adapt_gunicorn"):  # this server's own, at the start of its process
        worker.adapt_gunicorn()
    worker.wsgi = gunicorn.wsgi()
    configuration.post_worker_init(worker)
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    accepted, address = listener.accept()
    gevent.spawn(worker.handle, listener, accepted, address)
    return client


def exchange(client: socket.socket, request: bytes, end: bytes) -> None:
    """Sends a request and reads its answer up to `end`."""
    client.sendall(request)
    answer = b""
    while not answer.endswith(end):
        piece = client.recv(1 << 20)
        if not piece:
            raise SystemExit(f"the connection was closed after {answer!r}")
        answer += piece
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"refused: {answer[:500]!r}")


def count_instructions(state: str) -> None:
    """Tells callgrind; this process must run meanwhile, for it to listen."""
    command = ["callgrind_control", "-i", state, str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as control:
        while control.poll() is None:
            time.sleep(0.01)


def main() -> None:
    kind, count = sys.argv[1], int(sys.argv[2])
    sys.argv = ["gunicorn", *sys.argv[sys.argv.index("--") + 1 :]]
    body, end = (bodies()["1kB"], b"}") if kind == "chat" else (to_stream_body(STREAM_INTERVAL_MS), b"0\r\n\r\n")
    client = connect()
    request = to_request(body, client.getpeername()[1], {})
    for _ in range(WARM_UP[kind]):
        exchange(client, request, end)
    # One walk of the collector through everything that was imported would outweigh many requests.
    gc.collect()
    gc.freeze()
    count_instructions("on")
    for _ in range(count):
        exchange(client, request, end)
    count_instructions("off")
    os._exit(0)


if __name__ == "__main__":
    main()
