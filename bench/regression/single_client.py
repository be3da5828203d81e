"""Client of `hot_path`, `python -m bench.regression.single_client chat|stream PORT`.

For each line of standard input, a number, it sends so many requests on its one connection and then prints `done`.
"""

from __future__ import annotations

import socket
import sys
from typing import Final

from bench.workloads import bodies, to_request, to_stream_body

STREAM_INTERVAL_MS: Final = 30
"""Longer than an event takes under callgrind, so that events are relayed one by one in every run."""


def exchange(client: socket.socket, request: bytes, end: bytes) -> None:
    """Send a request and read its response up to `end`.

    Raises:
        SystemExit: the connection was closed early, or the status is not 200.
    """
    client.sendall(request)
    blocks = [client.recv(1 << 20)]
    while not blocks[-1].endswith(end):
        blocks.append(client.recv(1 << 20))
        if not blocks[-1]:
            raise SystemExit(f"the connection was closed after {b''.join(blocks)!r}")
    if not blocks[0].startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"the request failed: {blocks[0][:500]!r}")


def main() -> None:
    """Serve the commands on standard input until it ends."""
    kind, port = sys.argv[1], int(sys.argv[2])
    body, end = (bodies()["1kB"], b"}") if kind == "chat" else (to_stream_body(STREAM_INTERVAL_MS), b"0\r\n\r\n")
    client = socket.create_connection(("127.0.0.1", port))
    for line in sys.stdin:
        for _ in range(int(line)):
            exchange(client, to_request(body, port, {}), end)
        print("done", flush=True)


if __name__ == "__main__":
    main()
