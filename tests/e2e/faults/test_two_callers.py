"""Two callers of one route whose credentials travel to its upstream. Neither may take the upstream from the other."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.raw_server import RawServer, read_request

CALLS_OF_EACH = 6
"""So that both workers get some, and failures exceed the threshold of the circuit breaker."""
COMPLETION = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "upstream",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
}  # fmt: skip
CHUNK = {
    "id": "x", "object": "chat.completion.chunk", "created": 1, "model": "upstream",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
}  # fmt: skip


class Refusal(NamedTuple):
    """The upstream's answer to the caller that it refuses."""

    status: int
    code: str | None
    headers: str = ""
    kind: str = "application/json"

    def to_bytes(self) -> bytes:
        error = json.dumps({"error": {"message": "refused", "type": "x", "param": None, "code": self.code}})
        body = f"data: {error}\n\n" if self.kind == "text/event-stream" else error
        return to_response(self.status, body, self.kind, self.headers)


REFUSALS = {
    "unknown-key": Refusal(401, "invalid_api_key"),
    "forbidden": Refusal(403, None),
    "not-paid": Refusal(402, None),
    "rate-limited": Refusal(429, "rate_limit_exceeded", "Retry-After: 60\r\n"),
    "no-quota": Refusal(429, "insufficient_quota", "Retry-After: 60\r\nx-should-retry: false\r\n"),
    "no-quota-as-503": Refusal(503, "insufficient_quota"),
    "no-quota-in-an-answer": Refusal(200, "insufficient_quota"),
    "no-quota-in-a-stream": Refusal(200, "insufficient_quota", kind="text/event-stream"),
    "unknown-organization": Refusal(401, "invalid_organization"),
}
WITH_SERVER_KEY = "unknown-organization"
POOR = {"Authorization": "Bearer poor"}
POOR_ACCOUNT = {"Authorization": "Bearer any", "OpenAI-Organization": "poor"}
RICH = {"Authorization": "Bearer rich"}


def to_response(status: int, body: str, kind: str, headers: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}"
    )
    return f"{head}\r\n{body}".encode()


def serve(client: socket.socket) -> None:
    request = read_request(client)
    payload = json.loads(request.partition(b"\r\n\r\n")[2])
    if b"poor" in request:
        client.sendall(REFUSALS[payload["model"].partition("@")[0]].to_bytes())
    elif payload.get("stream"):
        client.sendall(to_response(200, f"data: {json.dumps(CHUNK)}\n\ndata: [DONE]\n\n", "text/event-stream"))
    else:
        client.sendall(to_response(200, json.dumps(COMPLETION), "application/json"))


def entries(base_url: str) -> Iterator[dict[str, Any]]:
    yield {"name": "echo", "kind": "echo"}
    for name in REFUSALS:
        for way in ("complete", "streamed"):
            key = {"api_key_env": "SERVER_KEY"} if name == WITH_SERVER_KEY else {}
            model = f"{name}@{way}"
            yield {"name": model, "kind": "openai", "base_url": base_url, "fallbacks": ["echo"], "cooldown": 60, **key}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    path = tmp_path_factory.mktemp("two-callers") / "models.json"
    with RawServer(serve) as upstream:
        path.write_text(json.dumps(list(entries(f"{upstream.url}/v1"))))
        with LiveServer({"MODELS_FILE": str(path), "SERVER_KEY": "sk-server"}, workers=2) as live:
            yield live


def ask(server: LiveServer, model: str, caller: dict[str, str], *, stream: bool) -> str | None:
    """Return the entry that answered, which the route names in a header, or None for an error."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    answer = requests.post(f"{server.base_url}/chat/completions", json=body, headers=caller, timeout=20)
    return answer.headers.get("x-openai-compat-upstream") if answer.ok else None


@pytest.mark.parametrize("stream", [False, True], ids=["complete", "streamed"])
@pytest.mark.parametrize("name", REFUSALS)
def test_what_an_upstream_says_about_one_caller_affects_no_other(
    server: LiveServer, name: str, *, stream: bool
) -> None:
    model = f"{name}@{'streamed' if stream else 'complete'}"
    poor = POOR_ACCOUNT if name == WITH_SERVER_KEY else POOR
    for _ in range(CALLS_OF_EACH):
        assert ask(server, model, poor, stream=stream) in {"echo", None}  # a refused key is the caller's to correct
    for _ in range(CALLS_OF_EACH):
        assert ask(server, model, RICH, stream=stream) == model
