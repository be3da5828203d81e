"""Fake Databricks workspace on loopback, with OIDC discovery, expiring tokens and strict serving endpoints.

Errors have the form `{"error_code", "message"}`. An unknown field is a 400 (source: `json: unknown field
"stream_options"`, continuedev/continue#12936). A stream has no usage chunk.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from secrets import token_hex
from typing import Any, Final
from urllib.parse import parse_qs

from openai_compat.core.tokens import split_tokens
from tests.support.chat_api import last_text

CLIENT_ID = "the-principal"
PERSONAL_TOKEN = "dapi-the-personal-token"
USER_TOKEN = "the-users-token"
KNOWN_FIELDS: Final = frozenset(
    {
        "model", "messages", "stream", "max_tokens", "temperature", "top_p", "top_k", "stop", "n", "tools",
        "tool_choice", "response_format", "logprobs", "top_logprobs", "reasoning_effort", "prompt", "input",
        "encoding_format",
    }
)  # fmt: skip


class Workspace:
    """Server that runs in a `with` block. `tokens_issued` counts OAuth tokens, `bodies` has those of endpoint calls.

    The endpoint `limited` answers 429, `forbidden` 403, and `reasoning` with content in parts. The endpoint `slow`
    pauses after its first token until `may_continue` is set. Any other endpoint echoes the last message.
    """

    def __init__(self, *, token_seconds: float = 3600.0) -> None:
        self.token_seconds = token_seconds
        self.may_continue = threading.Event()
        self.client_secret = f"dose-{token_hex(12)}"
        self.tokens_issued = 0
        self.issues_tokens = True
        self.token_delay = 0.0
        self.bodies: list[dict[str, Any]] = []
        self.authorizations: list[str] = []
        self._ends: dict[str, float] = {PERSONAL_TOKEN: float("inf"), USER_TOKEN: float("inf")}
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"workspace": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Workspace:
        threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    def settings(self, *endpoints: str) -> dict[str, str]:
        """Return settings of a server with the service principal's credentials."""
        return {
            "DATABRICKS_HOST": self.url,
            "DATABRICKS_CLIENT_ID": CLIENT_ID,
            "DATABRICKS_CLIENT_SECRET": self.client_secret,
            "DATABRICKS_ENDPOINTS": ",".join(endpoints),
        }

    def issue_token(self) -> str:
        with self._lock:
            self.tokens_issued += 1
            token = f"oauth-token-{self.tokens_issued}"
            self._ends[token] = time.time() + self.token_seconds
            return token

    def revoke_tokens(self) -> None:
        """Revoke all OAuth tokens issued so far."""
        with self._lock:
            self._ends.update({token: 0.0 for token in self._ends if token.startswith("oauth")})

    def accepts(self, authorization: str) -> bool:
        return self._ends.get(authorization.removeprefix("Bearer "), 0.0) > time.time()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    workspace: Workspace

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        oidc = f"{self.workspace.url}/oidc"
        if self.path == "/.well-known/databricks-config":
            self._answer(200, {"oidc_endpoint": oidc, "workspace_id": "1"})
        elif self.path == "/oidc/.well-known/oauth-authorization-server":
            self._answer(200, {"authorization_endpoint": f"{oidc}/v1/authorize", "token_endpoint": f"{oidc}/v1/token"})
        else:
            self._refuse(404, "ENDPOINT_NOT_FOUND", f"No API found for {self.path}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/oidc/v1/token":
            self._issue_token(body)
        else:
            self._invoke(json.loads(body))

    def _issue_token(self, body: bytes) -> None:
        time.sleep(self.workspace.token_delay)
        expected = "Basic " + base64.b64encode(f"{CLIENT_ID}:{self.workspace.client_secret}".encode()).decode()
        form = parse_qs(body.decode())
        is_known = self.headers.get("Authorization") == expected and form.get("scope") == ["all-apis"]
        if not (is_known and form.get("grant_type") == ["client_credentials"] and self.workspace.issues_tokens):
            self._answer(401, {"error": "invalid_client", "error_description": "Client authentication failed"})
            return
        seconds = int(self.workspace.token_seconds)
        token = {"access_token": self.workspace.issue_token(), "token_type": "Bearer", "expires_in": seconds}
        self._answer(200, token)

    def _invoke(self, request: dict[str, Any]) -> None:
        authorization = self.headers.get("Authorization", "")
        self.workspace.bodies.append(request)
        self.workspace.authorizations.append(authorization)
        unknown = next((name for name in request if name not in KNOWN_FIELDS), None)
        if not self.workspace.accepts(authorization):
            self._refuse(401, "UNAUTHENTICATED", "Credential was not sent or was of an unsupported type for this API.")
        elif unknown:
            self._refuse(400, "BAD_REQUEST", f'Bad request: json: unknown field "{unknown}"')
        elif request["model"] == "forbidden":
            self._refuse(403, "PERMISSION_DENIED", "You do not have permission to query this endpoint.")
        elif request["model"] == "limited":
            self._refuse(429, "REQUEST_LIMIT_EXCEEDED", "Exceeded workspace rate limit.", {"Retry-After": "7"})
        elif self.path.endswith("/embeddings"):
            data = [{"object": "embedding", "index": 0, "embedding": [0.0, 1.0]}]
            usage = {"prompt_tokens": 1, "total_tokens": 1}
            self._answer(200, {"object": "list", "model": request["model"], "data": data, "usage": usage})
        elif request.get("stream"):
            self._stream(request)
        else:
            self._answer(200, to_completion(request))

    def _stream(self, request: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, chunk in enumerate(to_chunks(request)):
            if request["model"] == "slow" and number == 1:
                self.workspace.may_continue.wait(20)
            self._write(f"data: {json.dumps(chunk)}\n\n".encode())
        self._write(b"data: [DONE]\n\n")
        self._write(b"")

    def _write(self, block: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block))

    def _refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] = {}) -> None:
        self._answer(status, {"error_code": code, "message": message}, headers)

    def _answer(self, status: int, value: Any, headers: Mapping[str, str] = {}) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, content in headers.items():
            self.send_header(name, content)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def to_content(request: Mapping[str, Any], text: str) -> Any:
    """Return the text, in parts if the model is a reasoning model."""
    if request["model"] != "reasoning":
        return text
    reasoning = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm. "}]}
    return [reasoning, {"type": "text", "text": text}]


def to_completion(request: Mapping[str, Any]) -> dict[str, Any]:
    text = request["prompt"] if "prompt" in request else last_text(request["messages"])
    message = {"role": "assistant", "content": to_content(request, text)}
    count = len(split_tokens(text))
    usage = {"prompt_tokens": count, "completion_tokens": count, "total_tokens": 2 * count}
    choice = {"index": 0, "message": message, "text": text, "finish_reason": "stop"}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m-1", "choices": [choice], "usage": usage}


def to_chunks(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    frame = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m-1"}
    for token in split_tokens(last_text(request["messages"])):
        choice = {"index": 0, "delta": {"role": "assistant", "content": to_content(request, token)}}
        yield {**frame, "choices": [{**choice, "finish_reason": None}]}
    yield {**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
