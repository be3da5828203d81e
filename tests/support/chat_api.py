"""Chat APIs with response forms of their own, on a real socket. Each one echoes the last message."""

from __future__ import annotations

import json
import select
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from openai_compat.core.tokens import split_tokens

Form = Literal["document", "events", "lines", "openai", "text"]
TYPES: dict[Form, str] = {
    "document": "application/json",
    "events": "text/event-stream",
    "lines": "application/x-ndjson",
    "openai": "text/event-stream",
    "text": "text/plain; charset=utf-8",
}


class ChatAPI:
    """Server that runs in a `with` block. It supports `max_tokens` and `stop`.

    After the response headers it waits for `delay` seconds, or until the client disconnects. `running` is the number of
    calls in progress.
    """

    def __init__(self, form: Form, delay: float = 0.0) -> None:
        self.form, self.delay = form, delay
        self.running = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}/chatting"

    def __enter__(self) -> ChatAPI:
        threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    def count(self, change: int) -> None:
        with self._lock:
            self.running += change


class _Server(ThreadingHTTPServer):
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    api: ChatAPI

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client may disconnect at any time
            super().handle()

    def do_POST(self) -> None:
        self.api.count(1)
        try:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        finally:
            self.api.count(-1)

    def _answer(self, request: dict[str, Any]) -> None:
        blocks = [block.encode() for block in to_reply(self.api.form, request)]
        has_length = self.api.form == "document"
        self.send_response(200)
        self.send_header("Content-Type", TYPES[self.api.form])
        self.send_header(*(("Content-Length", str(len(blocks[0]))) if has_length else ("Transfer-Encoding", "chunked")))
        self.end_headers()
        if select.select([self.connection], [], [], self.api.delay)[0] and self.api.delay:
            self.close_connection = True
            return
        for block in blocks:
            self.wfile.write(block if has_length else b"%x\r\n%b\r\n" % (len(block), block))
        self.wfile.write(b"" if has_length else b"0\r\n\r\n")

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def to_reply(form: Form, request: dict[str, Any]) -> Iterator[str]:
    """Yield the blocks of the response body."""
    tokens, reason = to_answer(request)
    counts = (len(split_tokens(last_text(request["messages"]))), len(tokens))
    if form == "document":
        usage = {"input_tokens": counts[0], "output_tokens": counts[1]}
        yield json.dumps({"code": 0, "data": {"answer": "".join(tokens), "finish_reason": reason, "usage": usage}})
    elif form == "text":
        yield from tokens
    elif form == "events":
        for token in tokens:
            yield to_event({"role": "assistant", "content": token, "finish_reason": None})
        yield to_event({"role": "assistant", "content": "", "finish_reason": reason})
    elif form == "lines":
        for token in tokens:
            yield json.dumps({"message": {"role": "assistant", "content": token}, "done": False}) + "\n"
        end = {"done": True, "done_reason": reason, "prompt_eval_count": counts[0], "eval_count": counts[1]}
        yield json.dumps({"message": {"role": "assistant", "content": ""}, **end}) + "\n"
    else:
        for token in tokens:
            yield to_event({"choices": [{"index": 0, "delta": {"content": token}, "finish_reason": None}]})
        yield to_event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        yield to_event({"choices": [], "usage": {"prompt_tokens": counts[0], "completion_tokens": counts[1]}})
        yield "data: [DONE]\n\n"


def to_event(value: Any) -> str:
    return f"data: {json.dumps(value)}\n\n"


def to_answer(request: dict[str, Any]) -> tuple[list[str], str]:
    """Return the tokens of the answer, which `stop` and `max_tokens` limit, and its finish reason."""
    text = last_text(request["messages"])
    stops = request.get("stop") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.partition(stop)[0]
    tokens = split_tokens(text)
    limit = request.get("max_tokens") or request.get("max_completion_tokens") or len(tokens)
    return tokens[:limit], "length" if limit < len(tokens) else "stop"


def last_text(messages: list[dict[str, Any]]) -> str:
    """Return the text of the last message."""
    content = messages[-1]["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
