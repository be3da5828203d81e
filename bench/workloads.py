"""Requests that every system receives, byte for byte the same except for the headers that it requires."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

KEY: Final = "sk-bench-0123456789abcdef"
MODEL: Final = "bench"
EVENTS: Final = 100
PROSE: Final = (
    "a proxy takes the request hands it on and gives back what came so that humans can tell whether it was there at "
    "all while the model thinks about an answer which is longer than its question and costs a little more"
)


def text(characters: int, seed: int) -> str:
    """Return prose of that length, the same for the same seed, with a few characters that JSON must escape."""
    rng = random.Random(seed)
    words: list[str] = []
    vocabulary = PROSE.split()
    length = 0
    while length < characters:
        word = rng.choice(vocabulary)
        word = f'"{word}"' if rng.random() < 0.01 else word + ("\n" if rng.random() < 0.02 else "")
        words.append(word)
        length += len(word) + 1
    return " ".join(words)[:characters]


def conversation(messages: int, characters: int) -> list[dict[str, Any]]:
    """Return a system message and turns of user and assistant, each of `characters` characters."""
    first: dict[str, Any] = {"role": "system", "content": text(characters, 0)}
    return [first] + [
        {"role": "user" if number % 2 else "assistant", "content": text(characters, number)}
        for number in range(1, messages)
    ]


def image_conversation(size: int) -> list[dict[str, Any]]:
    """Return a user message with an image whose base64 text has `size` characters."""
    image = base64.b64encode(random.Random(1).randbytes(size * 3 // 4)).decode()
    parts = [
        {"type": "text", "text": "What is in this picture?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
    ]
    return [{"role": "user", "content": parts}]


def bodies() -> dict[str, bytes]:
    """Return the request bodies by name, chats of four sizes and streams of two speeds."""
    return {
        "1kB": to_body(conversation(2, 380)),
        "40messages": to_body(conversation(40, 120)),
        "100kB": to_body(conversation(60, 1600)),
        "5MB": to_body(image_conversation(5_000_000)),
        "stream": to_stream_body(50),
        "fast_stream": to_stream_body(10),
    }


def to_stream_body(interval_ms: int) -> bytes:
    """Return a streamed chat with an event every `interval_ms`, which the benchmark's upstream reads from `seed`."""
    return to_body(conversation(2, 380), stream=True, max_tokens=EVENTS, seed=interval_ms)


def to_body(messages: list[dict[str, Any]], **options: Any) -> bytes:
    settings = {"temperature": 0.7, "top_p": 0.95, "max_tokens": 512, "user": "user-4711", **options}
    return json.dumps({"model": MODEL, **settings, "messages": messages}).encode()


def to_request(body: bytes, port: int, headers: Mapping[str, str], path: str = "/v1/chat/completions") -> bytes:
    """Return the complete HTTP request, with the headers that OpenAI's Python client sends."""
    lines = {
        "Host": f"127.0.0.1:{port}",
        "Authorization": f"Bearer {KEY}",
        "Accept": "application/json",
        "Content-Type": "application/json",
        "User-Agent": "OpenAI/Python 3.52.0",
        "X-Stainless-Lang": "python",
        "X-Stainless-Package-Version": "3.52.0",
        "X-Stainless-OS": "Linux",
        "X-Stainless-Arch": "x64",
        "X-Stainless-Runtime": "CPython",
        "X-Stainless-Retry-Count": "0",
        "X-Stainless-Read-Timeout": "600",
        **headers,
        "Content-Length": str(len(body)),
    }
    header_block = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{header_block}\r\n".encode() + body


def write_requests(folder: Path, port: int, headers: Mapping[str, str]) -> dict[str, Path]:
    """Write one file for each kind of request and return their paths by name."""
    paths = {}
    for name, body in bodies().items():
        paths[name] = folder / f"{name}.request"
        paths[name].write_bytes(to_request(body, port, headers))
    return paths
