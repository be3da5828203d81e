"""A chat API without a network: replies as scripted, block by block, and the external backend in front of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from openai_compat.backends.external.backend import ExternalBackend, ExternalOptions
from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.backends.resources import BackendResources
from openai_compat.core.settings import ModelConfig, Settings, Timeouts
from openai_compat.core.streams import Heartbeat, PrimedStream
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest

URL = "https://test.com/chatting"
JSON, TEXT, EVENTS, LINES = "application/json", "text/plain; charset=utf-8", "text/event-stream", "application/x-ndjson"


class ScriptedReply(UpstreamResponse):
    """A reply as scripted: its blocks in their order, SILENCE and errors among them."""

    def __init__(self, status: int, headers: Mapping[str, str], blocks: list[bytes | Heartbeat | Exception]) -> None:
        self.status, self.headers, self.script = status, dict(headers), blocks
        self.ending = ""

    def blocks(self) -> Iterator[bytes | Heartbeat]:
        for block in self.script:
            if isinstance(block, Exception):
                raise block
            yield block

    def read(self) -> bytes:
        return b"".join(block for block in self.blocks() if isinstance(block, bytes))

    def close(self) -> None:
        self.ending = self.ending or "closed"

    def release(self) -> None:
        self.ending = self.ending or "closed after its end"


class ScriptedForwarder:
    """Takes down what it is to send, and answers with one scripted reply."""

    def __init__(self, reply: ScriptedReply) -> None:
        self.reply = reply
        self.method = self.url = ""
        self.headers: dict[str, str] = {}
        self.timeouts = Timeouts()
        self.body: dict[str, Any] = {}

    def send(self, method: str, url: str, **call: Any) -> ScriptedReply:
        self.method, self.url, self.headers, self.timeouts = method, url, dict(call["headers"]), call["timeouts"]
        self.body = json.loads(call["body"])
        return self.reply


def make(
    body: Any, content_type: str | None = JSON, status: int = 200, is_chunked: bool = False, **headers: str
) -> ScriptedReply:
    """A reply with `body` (anything but bytes and lists of blocks goes as JSON) in one block, with its length."""
    blocks = body if isinstance(body, list) and any(isinstance(block, bytes) for block in body) else None
    if blocks is None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        blocks = [content] if content else []
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if content_type:
        sent["content-type"] = content_type
    if not is_chunked:
        sent["content-length"] = str(sum(len(block) for block in blocks if isinstance(block, bytes)))
    return ScriptedReply(status, sent, blocks)


def ask(
    reply: ScriptedReply, *, is_streamed: bool = False, reply_path: str | None = None, **entry: Any
) -> Iterator[ChatDelta | Heartbeat]:
    """The deltas of the answer, primed as the service does it."""
    backend = make_backend(ScriptedForwarder(reply), ExternalOptions(reply_path), **entry)
    request = ChatRequest("external-chat", [{"role": "user", "content": "hi"}], is_streamed=is_streamed)
    return PrimedStream(backend.chat(request, CallContext("r")))


def make_backend(forwarder: ScriptedForwarder, options: ExternalOptions | None = None, **entry: Any) -> ExternalBackend:
    model = replace(ModelConfig("external-chat", "external", base_url=URL), **entry)
    resources = BackendResources(Settings(), forwarder)  # type: ignore[arg-type]
    return ExternalBackend(model, options or ExternalOptions(), resources)


def read(reply: ScriptedReply, **how: Any) -> list[ChatDelta]:
    return [delta for delta in ask(reply, **how) if isinstance(delta, ChatDelta)]


def text_of(deltas: list[ChatDelta]) -> str:
    return "".join(delta.content or "" for delta in deltas)


def events(*values: Any, end: str = "") -> bytes:
    written = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return "".join(f"data: {value}\n\n" for value in written).encode() + end.encode()


def lines(*values: Any) -> bytes:
    return "".join(f"{json.dumps(value)}\n" for value in values).encode()
