"""Program that opens many streamed chats at once on raw sockets, which cost the client little CPU.

    python -m tests.e2e.clients.stream_swarm PORT STREAMS MODEL TEXT

It prints a JSON object with the number of content chunks of each stream, the problems of incomplete streams, and
whether all streams were open at the same time.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

IDLE_TIMEOUT = 30
"""Seconds without data on any stream after which the program gives up."""
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)


@dataclass
class Stream:
    """One connection and the bytes received on it."""

    connection: socket.socket
    blocks: list[bytes] = field(default_factory=list)
    started: float = 0.0
    ended: float = 0.0

    def receive(self) -> bool:
        """Read the available bytes. Return False at the end of the stream."""
        try:
            block = self.connection.recv(262_144)
        except ConnectionError as error:
            block = b""
            self.blocks.append(f"\r\n{error!r}".encode())
        if block and not self.blocks:
            self.started = time.monotonic()
        self.blocks.append(block)
        if not block:
            self.ended = time.monotonic()
        return bool(block)

    def check(self) -> tuple[int, str]:
        """Return the number of content chunks and the problem of the stream, or an empty string."""
        head, _, body = b"".join(self.blocks).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            return 0, head[:200].decode("utf-8", "replace")
        *events, rest = _unchunked(body).split(b"\n\n")
        if rest or not events or events[-1] != b"data: [DONE]":
            return 0, f"it ends with {body[-200:]!r}"
        chunks = [json.loads(event.removeprefix(b"data: ")) for event in events[:-1] if event.startswith(b"data: ")]
        if any("error" in chunk for chunk in chunks):
            return 0, str(chunks[-1])
        return sum(bool(chunk["choices"] and chunk["choices"][0]["delta"].get("content")) for chunk in chunks), ""


def _unchunked(body: bytes) -> bytes:
    """Return the body without chunked framing, or an empty body if the framing is broken."""
    blocks, at = [], 0
    while True:
        line_end = body.find(b"\r\n", at)
        size = int(body[at:line_end] or b"-1", 16) if line_end >= 0 else -1
        if size <= 0:
            return b"".join(blocks) if size == 0 and body[line_end:] == b"\r\n\r\n" else b""
        blocks.append(body[line_end + 2 : line_end + 2 + size])
        at = line_end + 2 + size + 2


def run(port: int, streams: int, model: str, text: str) -> dict[str, object]:
    """Open all streams, read them to their ends, and return the results."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}], "stream": True}).encode()
    head = HEAD % len(body)
    selector = selectors.DefaultSelector()
    swarm = []
    for _ in range(streams):
        stream = Stream(socket.create_connection(("127.0.0.1", port), timeout=IDLE_TIMEOUT))
        stream.connection.sendall(head + body)
        selector.register(stream.connection, selectors.EVENT_READ, stream)
        swarm.append(stream)
    while selector.get_map() and (ready := selector.select(IDLE_TIMEOUT)):
        for key, _ in ready:
            if not key.data.receive():
                selector.unregister(key.data.connection)
    for stream in swarm:
        stream.connection.close()
    checked = [stream.check() for stream in swarm]
    return {
        "chunks": [count for count, _ in checked],
        "problems": Counter(problem for _, problem in checked if problem).most_common(5),
        "all_at_once": max(stream.started for stream in swarm) < min(stream.ended for stream in swarm),
    }


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])))
