"""Many streamed chats at once from one process, on raw sockets, so that the client is not what is measured.

    python -m tests.e2e.clients.stream_swarm PORT STREAMS MODEL TEXT

prints one JSON object: the content chunks of each stream, what was wrong with those that are not whole, and whether all
of them were open at the same time.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

SILENT_SECONDS = 30
"""When nothing comes on any stream for so long, the rest is given up."""
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)


@dataclass
class Stream:
    """One connection, and all bytes that came over it."""

    connection: socket.socket
    blocks: list[bytes] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0

    def receive(self) -> bool:
        """Takes what has come; False when that was the end."""
        try:
            block = self.connection.recv(262_144)
        except ConnectionError as error:
            block = b""
            self.blocks.append(f"\r\n{error!r}".encode())
        if block and not self.blocks:
            self.began = time.monotonic()
        self.blocks.append(block)
        if not block:
            self.ended = time.monotonic()
        return bool(block)

    def judge(self) -> tuple[int, str]:
        """The number of content chunks, and what is wrong with the stream: "" for nothing."""
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
    """The body without HTTP's chunked framing; "" where that is broken."""
    pieces, at = [], 0
    while True:
        line_end = body.find(b"\r\n", at)
        size = int(body[at:line_end] or b"-1", 16) if line_end >= 0 else -1
        if size <= 0:
            return b"".join(pieces) if size == 0 and body[line_end:] == b"\r\n\r\n" else b""
        pieces.append(body[line_end + 2 : line_end + 2 + size])
        at = line_end + 2 + size + 2


def run(port: int, streams: int, model: str, text: str) -> dict[str, object]:
    """Opens all streams, reads them to their ends, and closes them."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}], "stream": True}).encode()
    head = HEAD % len(body)
    selector = selectors.DefaultSelector()
    swarm = []
    for _ in range(streams):
        stream = Stream(socket.create_connection(("127.0.0.1", port), timeout=SILENT_SECONDS))
        stream.connection.sendall(head + body)
        selector.register(stream.connection, selectors.EVENT_READ, stream)
        swarm.append(stream)
    while selector.get_map() and (ready := selector.select(SILENT_SECONDS)):
        for key, _ in ready:
            if not key.data.receive():
                selector.unregister(key.data.connection)
    for stream in swarm:
        stream.connection.close()
    judged = [stream.judge() for stream in swarm]
    return {
        "chunks": [count for count, _ in judged],
        "problems": Counter(problem for _, problem in judged if problem).most_common(5),
        "all_at_once": max(stream.began for stream in swarm) < min(stream.ended for stream in swarm),
    }


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])))
