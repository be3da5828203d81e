"""A chat model, as an upstream of OpenAI's protocol, whose answers a test writes."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

from tests.support.raw_server import RawServer, read_request

JSONObject = dict[str, Any]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
END = b"data: [DONE]\n\n"


def chunk(delta: Any, finish_reason: str | None = None) -> bytes:
    """Return one event of a streamed chat completion."""
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    return b"data: " + json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": choices}).encode() + b"\n\n"


def text_events(*parts: str) -> bytes:
    """Return the events of a complete answer of text."""
    start = chunk({"role": "assistant", "content": parts[0]})
    return start + b"".join(chunk({"content": part}) for part in parts[1:]) + chunk({}, "stop") + END


def call_events(*calls: tuple[str, JSONObject], thought: str = "") -> bytes:
    """Return the events of a complete answer that calls tools, each with its name and arguments."""
    start = chunk({"role": "assistant", "reasoning_content": thought}) if thought else b""
    events = [
        chunk({"tool_calls": [_call_delta(index, name, arguments)]}) for index, (name, arguments) in enumerate(calls)
    ]
    return start + b"".join(events) + chunk({}, "tool_calls") + END


def _call_delta(index: int, name: str, arguments: JSONObject) -> JSONObject:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"index": index, "id": f"call_{name}_{index}", "type": "function", "function": function}


class ScriptedModel:
    """A chat model that answers each call with the events that `answer` makes of its body and of its number."""

    def __init__(self, answer: Callable[[JSONObject, int], bytes]) -> None:
        self._answer = answer
        self.requests: list[JSONObject] = []
        self.server = RawServer(self._serve)

    def _serve(self, client: socket.socket) -> None:
        payload = json.loads(read_request(client).partition(b"\r\n\r\n")[2])
        self.requests.append(payload)
        client.sendall(HEAD + self._answer(payload, len(self.requests)))
