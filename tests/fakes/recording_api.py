"""A chat API that takes down what it is asked and always gives the same reply, on a real socket."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class RecordingAPI:
    """`with RecordingAPI("It is sunny today.") as api: api.url`; `bodies` has what it was asked, in order."""

    def __init__(self, reply: str, *, status: int = 200) -> None:
        self.bodies: list[dict[str, Any]] = []
        self._status = status
        answer = {"reply": reply, "data": {"answer": reply}}
        self._body = json.dumps(answer if status < 400 else {"error": reply}).encode()

    def __enter__(self) -> Self:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                api.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(api._status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(api._body)))
                self.end_headers()
                self.wfile.write(api._body)

            def log_message(self, *_: Any) -> None:
                """Quiet: what a test wants to know is in `bodies`."""

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
