"""Fake HTTP client with scripted responses, and helpers that read them with the external backend."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from openai_compat.backends.external.backend import ExternalBackend, ExternalOptions
from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.backends.resources import BackendResources
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.streams import Heartbeat, PrimedStream
from openai_compat.core.timeouts import Timeouts
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest

URL = "https://test.com/chatting"
JSON, TEXT, EVENTS, LINES = "application/json", "text/plain; charset=utf-8", "text/event-stream", "application/x-ndjson"


class ScriptedResponse(UpstreamResponse):
    """Response with a scripted list of blocks, heartbeats and errors. `ending` records how it was closed."""

    def __init__(self, status: int, headers: Mapping[str, str], blocks: list[bytes | Heartbeat | Exception]) -> None:
        self.status, self.headers, self.script = status, dict(headers), blocks
        self.ending = ""

    def blocks(self) -> Iterator[bytes | Heartbeat]:
        for block in self.script:
            if isinstance(block, Exception):
                raise block
            yield block

    def close(self) -> None:
        self.ending = self.ending or "closed"

    def release(self) -> None:
        self.ending = self.ending or "released"


class ScriptedClient:
    """Client that records its last request and returns one scripted response."""

    def __init__(self, response: ScriptedResponse) -> None:
        self.response = response
        self.method = self.url = ""
        self.headers: dict[str, str] = {}
        self.timeouts = Timeouts()
        self.body: dict[str, Any] = {}

    def send(self, method: str, url: str, **options: Any) -> ScriptedResponse:
        self.method, self.url = method, url
        self.headers, self.timeouts = dict(options["headers"]), options["timeouts"]
        self.body = json.loads(options["body"])
        return self.response


def make(
    body: Any, content_type: str | None = JSON, status: int = 200, is_chunked: bool = False, **headers: str
) -> ScriptedResponse:
    """Return a response with a `Content-Length`, unless it `is_chunked`.

    `body` is bytes, a list of blocks, or any other value, which is sent as JSON.
    """
    blocks = body if isinstance(body, list) and any(isinstance(block, bytes) for block in body) else None
    if blocks is None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        blocks = [content] if content else []
    response_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if content_type:
        response_headers["content-type"] = content_type
    if not is_chunked:
        response_headers["content-length"] = str(sum(len(block) for block in blocks if isinstance(block, bytes)))
    return ScriptedResponse(status, response_headers, blocks)


def ask(
    response: ScriptedResponse, *, is_streamed: bool = False, reply_path: str | None = None, **entry: Any
) -> Iterator[ChatDelta | Heartbeat]:
    """Return the deltas of the answer, primed as the service primes them."""
    backend = make_backend(ScriptedClient(response), ExternalOptions(reply_path), **entry)
    request = ChatRequest("external-chat", [{"role": "user", "content": "hi"}], is_streamed=is_streamed)
    return PrimedStream(backend.chat(request, CallContext("r")))


def make_backend(client: ScriptedClient, options: ExternalOptions | None = None, **entry: Any) -> ExternalBackend:
    model = replace(ModelConfig("external-chat", "external", base_url=URL), **entry)
    resources = BackendResources(Settings(), client)  # type: ignore[arg-type]
    return ExternalBackend(model, options or ExternalOptions(), resources)


def read(response: ScriptedResponse, **options: Any) -> list[ChatDelta]:
    return [delta for delta in ask(response, **options) if isinstance(delta, ChatDelta)]


def text_of(deltas: list[ChatDelta]) -> str:
    return "".join(delta.content or "" for delta in deltas)


def events(*values: Any, end: str = "") -> bytes:
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return "".join(f"data: {text}\n\n" for text in texts).encode() + end.encode()


def lines(*values: Any) -> bytes:
    return "".join(f"{json.dumps(value)}\n" for value in values).encode()
