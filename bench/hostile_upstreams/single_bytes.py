"""CPU time of a worker for an answer in chunks of one byte."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import requests

from bench.processes import cpu_ns
from tests.support.live_server import LiveServer
from tests.support.raw_server import RawServer, Script, read_request

ANSWER_BYTES: Final = 2_000_000
EVENT: Final = b'data: {"choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
END: Final = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
QUESTION: Final = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def measure_single_bytes() -> Iterator[str]:
    """Yield a line for each kind of answer, with all chunks in few writes or each in a write of its own."""
    for is_paced in (False, True):
        writes = "one write a chunk" if is_paced else "few writes"
        upstream = RawServer(in_single_bytes(is_paced=is_paced))
        settings = {"OPENAI_API_KEY": "key", "OPENAI_BASE_URL": f"{upstream.url}/v1"}
        with upstream, LiveServer(settings) as server:
            (worker,) = server.workers()
            for name, call in calls_of(server.base_url).items():
                before = cpu_ns(worker)
                call().raise_for_status()
                yield f"{name}, {writes}: {(cpu_ns(worker) - before) / 1e9:.2f} s of CPU"


def calls_of(base_url: str) -> Mapping[str, Callable[[], requests.Response]]:
    """Return the calls to measure."""
    chat = f"{base_url}/chat/completions"
    return {
        "chat": lambda: requests.post(chat, json=QUESTION, timeout=300),
        "stream": lambda: requests.post(chat, json={**QUESTION, "stream": True}, timeout=300),
        "download": lambda: requests.get(f"{base_url}/files/f/content", timeout=300),
    }


def in_single_bytes(*, is_paced: bool) -> Script:
    """Return an upstream whose chunks have one byte each. If it `is_paced`, each chunk is a write of its own."""

    def script(client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        is_stream = re.search(rb'"stream": ?true', read_request(client)) is not None
        content_type = "text/event-stream" if is_stream else "application/json"
        client.sendall(
            f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        body = EVENT * (ANSWER_BYTES // len(EVENT)) + END if is_stream else to_completion()
        chunks = [b"1\r\n%c\r\n" % byte for byte in body] + [b"0\r\n\r\n"]
        for block in chunks if is_paced else [b"".join(chunks)]:
            client.sendall(block)

    return script


def to_completion() -> bytes:
    """Return an answer of `ANSWER_BYTES`."""
    message = {"role": "assistant", "content": "x" * ANSWER_BYTES}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
