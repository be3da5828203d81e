"""The client of `hot_path`: `python -m bench.regression.single_client chat|stream PORT`.

For each line of standard input, a number, it sends so many requests on its one connection, and then writes a line.
"""

from __future__ import annotations

import socket
import sys
from typing import Final

from bench.workloads import bodies, to_request, to_stream_body

STREAM_INTERVAL_MS: Final = 30
"""Longer than an event takes under the counter, so that events come one by one in every run."""


def exchange(client: socket.socket, request: bytes, end: bytes) -> None:
    """Sends a request and reads its answer up to `end`."""
    client.sendall(request)
    pieces = [client.recv(1 << 20)]
    while not pieces[-1].endswith(end):
        pieces.append(client.recv(1 << 20))
        if not pieces[-1]:
            raise SystemExit(f"the connection was closed after {b''.join(pieces)!r}")
    if not pieces[0].startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"refused: {pieces[0][:500]!r}")


def main() -> None:
    kind, port = sys.argv[1], int(sys.argv[2])
    body, end = (bodies()["1kB"], b"}") if kind == "chat" else (to_stream_body(STREAM_INTERVAL_MS), b"0\r\n\r\n")
    client = socket.create_connection(("127.0.0.1", port))
    for line in sys.stdin:
        for _ in range(int(line)):
            exchange(client, to_request(body, port, {}), end)
        print("done", flush=True)


if __name__ == "__main__":
    main()
