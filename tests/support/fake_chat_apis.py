"""Fake chat APIs of six shapes on one loopback server, those of the examples in docs/guides/custom-http-apis.md.

Each one echoes the last user message and requires `KEY`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

from openai_compat.core.tokens import split_tokens

KEY: Final = "shape-key-1"
HOST: Final = "https://apis.example.com"
"""The address of the APIs in the documentation."""


class RecordedRequest(NamedTuple):
    method: str
    path: str
    """With its query."""
    headers: dict[str, str]
    body: str


class FakeChatAPIs:
    """Server of all six APIs. Each one answers a text that contains "busy" with its own error."""

    def __init__(self) -> None:
        self.requests: list[RecordedRequest] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"apis": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeChatAPIs:
        threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    apis: FakeChatAPIs

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        self._answer("")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())

    def _answer(self, body: str) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.apis.requests.append(RecordedRequest(self.command, self.path, headers, body))
        parts = urlsplit(self.path)
        if parts.path == "/parlour":  # checks the key itself and refuses with status 200
            self._parlour(headers["authorization"] == f"Key {KEY}", json.loads(body))
            return
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if KEY not in [*headers.values(), *query.values(), headers.get("authorization", "").removeprefix("Bearer ")]:
            self._send(401, "application/json", json.dumps({"error": "no key"}))
            return
        respond = {
            "/helpdesk/ask": self._helpdesk,
            "/typing": self._typing,
            "/lines/whole": self._lines,
            "/lines/stream": self._lines,
            "/oracle": self._oracle,
            "/v1/messages": self._messages,
        }[parts.path]
        respond(query, body)

    def _helpdesk(self, _query: dict[str, str], body: str) -> None:
        """Send JSON, and errors with status 200."""
        request = json.loads(body)
        text = request["question"]
        if "busy" in text:
            reason = {"code": "QUOTA", "text": "Too many questions.", "retryInMs": 1500}
            self._send(200, "application/json", json.dumps({"status": "failed", "reason": reason}))
            return
        tokens = split_tokens(text)[: request.get("maxLength")]
        why = "END" if len(tokens) == len(split_tokens(text)) else "TOO_LONG"
        data = {"answer": "".join(tokens), "why": why, "tokens": {"in": 3, "out": len(tokens)}}
        self._send(200, "application/json", json.dumps({"status": "ok", "ticket": "t-17", "data": data}))

    def _typing(self, query: dict[str, str], _body: str) -> None:
        """Send events that repeat the answer from its beginning, in response to GET."""
        if "busy" in query["q"]:
            self._send(503, "text/plain", "come back later", {"X-Come-Back": "2"})
            return
        full, events = "", []
        for token in split_tokens(query["q"]):
            full += token
            events.append({"full": full, "state": "typing"})
        events.append({"full": full, "state": "finished"})
        self._stream("text/event-stream", (f"data: {json.dumps(event)}\n\n" for event in events))

    def _parlour(self, is_known: bool, request: dict[str, Any]) -> None:
        """Send named events, some of them with bare text or errors."""
        text = request["chat"][-1]["says"]
        if "busy" in text or not is_known:
            fault = {"number": 1402 if is_known else 1401, "why": "No table is free."}
            self._stream("text/event-stream", iter([f"event: fault\ndata: {json.dumps(fault)}\n\n"]))
            return
        tokens = split_tokens(text)
        events = [("seat", '{"table": "t-4"}'), *(("token", token) for token in tokens)]
        events += [("bill", json.dumps({"heard": 6, "said": len(tokens)})), ("end", "")]
        self._stream("text/event-stream", (f"event: {name}\ndata: {data}\n\n" for name, data in events))

    def _lines(self, _query: dict[str, str], body: str) -> None:
        """Send JSON at one path, and lines of JSON at another."""
        text = json.loads(body)["turns"][-1]["says"]
        if "busy" in text:
            self._send(422, "application/json", json.dumps({"errors": [{"title": "I do not take that."}]}))
            return
        tokens = split_tokens(text)
        counts = {"read": 5, "written": len(tokens)}
        if self.path.endswith("whole"):
            self._send(200, "application/json", json.dumps({"text": text, "end": "eos", "counts": counts}))
            return
        lines = [{"token": token} for token in tokens] + [{"token": "", "end": "eos", "counts": counts}]
        self._stream("application/x-ndjson", (json.dumps(line) + "\n" for line in lines))

    def _oracle(self, _query: dict[str, str], body: str) -> None:
        """Send bare text in response to a form."""
        form = parse_qs(body)
        text = form["prompt"][0].rpartition("User: ")[2]
        if "busy" in text:
            self._send(429, "text/plain", "The oracle is tired.", {"Retry-After": "9"})
            return
        self._stream("text/plain; charset=utf-8", iter(split_tokens(text)))

    def _messages(self, _query: dict[str, str], body: str) -> None:
        """Respond as Anthropic's Messages API, by its API reference."""
        request = json.loads(body)
        text = request["messages"][-1]["content"]
        if "busy" in text:
            error = {"type": "overloaded_error", "message": "Overloaded"}
            self._send(529, "application/json", json.dumps({"type": "error", "error": error}))
            return
        tokens = split_tokens(text)[: request["max_tokens"]]
        reason = "end_turn" if len(tokens) == len(split_tokens(text)) else "max_tokens"
        usage = {"input_tokens": 4, "output_tokens": len(tokens)}
        if not request.get("stream"):
            content = [{"type": "text", "text": "".join(tokens)}]
            reply = {"id": "msg_1", "type": "message", "content": content, "stop_reason": reason, "usage": usage}
            self._send(200, "application/json", json.dumps(reply))
            return
        self._stream("text/event-stream", _message_events(tokens, reason, usage))

    def _send(self, status: int, content_type: str, body: str, headers: dict[str, str] | None = None) -> None:
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, content_type: str, chunks: Iterator[str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            content = chunk.encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def _message_events(tokens: list[str], reason: str, usage: dict[str, int]) -> Iterator[str]:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 4, "output_tokens": 0}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "delta": {"type": "text_delta", "text": token}} for token in tokens),
        {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": usage["output_tokens"]}},
        {"type": "message_stop"},
    ]
    for event in events:
        yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
