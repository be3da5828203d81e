"""A chat API on a real socket that records its requests and always returns the same reply."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class RecordingAPI:
    """Server that runs in a `with` block. `bodies` has the request bodies in order.

    A request to `/messages` gets a message of Anthropic's API.

    The response has the keys `reply` and `data.answer`, and it is a chat completion with `n` choices. With `streams`, a
    request for a stream gets one with a single chunk. With a `status` of 400 or more, the reply is the error.
    """

    def __init__(self, reply: str, *, status: int = 200, streams: bool = True) -> None:
        self.bodies: list[dict[str, Any]] = []
        self._status = status
        self._reply = reply
        self._streams = streams

    def __enter__(self) -> Self:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.bodies.append(request)
                answer = api._answer_message if self.path.endswith("/messages") else api._answer
                content_type, body = answer(request)
                self.send_response(api._status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/chatting"
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer_message(self, _request: dict[str, Any]) -> tuple[str, bytes]:
        content = [{"type": "text", "text": self._reply}]
        message = {"type": "message", "role": "assistant", "content": content, "stop_reason": "end_turn"}
        return "application/json", json.dumps(message).encode()

    def _answer(self, request: dict[str, Any]) -> tuple[str, bytes]:
        if self._status >= 400:
            return "application/json", json.dumps({"error": self._reply}).encode()
        message = {"role": "assistant", "content": self._reply}
        if self._streams and request.get("stream") is True:
            choice = {"index": 0, "delta": message, "finish_reason": "stop"}
            chunk = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "x", "choices": [choice]}
            return "text/event-stream", f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode()
        answer: dict[str, Any] = {"text": self._reply} if "prompt" in request else {"message": message}
        choices = [{"index": index, **answer, "finish_reason": "stop"} for index in range(request.get("n", 1))]
        completion = {"id": "x", "object": "chat.completion", "created": 0, "model": "x", "choices": choices}
        return "application/json", json.dumps(
            {"reply": self._reply, "data": {"answer": self._reply}, **completion}
        ).encode()
