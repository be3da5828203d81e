"""gunicorn's gevent worker, with answers that leave in fewer system calls.

gunicorn sends the head of an answer and its first bytes one after the other, and gevent's `sendall` asks for the size
of the socket's buffer each time. `docs/performance.md` has what that cost.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from gunicorn.http import wsgi
from gunicorn.workers.ggevent import GeventWorker

SMALL_BYTES: Final = 65_536
"""Up to this size, copying the bytes behind the head costs less than sending them by themselves."""


class OneSendResponse(wsgi.Response):
    """The head waits for the first bytes of the body, and both go out together."""

    _head = b""

    def send_headers(self) -> None:
        if self.headers_sent:
            return
        lines = [*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers), "\r\n"]
        self._head = "".join(lines).encode("latin-1")
        self.headers_sent = True

    def _emit_body(self, data: bytes) -> None:
        """What gunicorn calls to put a piece of the body on the wire."""
        head, self._head = self._head, b""
        if len(data) > SMALL_BYTES:
            start, end = (b"%s%X\r\n" % (head, len(data)), b"\r\n") if self.chunked else (head, b"")
            for piece in (start, data, end):
                self._send(piece)
        else:
            self._send(b"%s%X\r\n%s\r\n" % (head, len(data), data) if self.chunked else head + data)

    def _send(self, data: bytes) -> None:
        """Most of the time all of it fits into the socket's buffer at once."""
        sent = self.sock.send(data)
        if sent < len(data):
            self.sock.sendall(memoryview(data)[sent:])

    def close(self) -> None:
        self.send_headers()
        rest = self._head + (b"0\r\n\r\n" if self.chunked else b"")
        if rest:
            self._head = b""
            self._send(rest)


class Worker(GeventWorker):
    """What `gunicorn.conf.py` names as its `worker_class`."""

    def init_process(self) -> None:
        wsgi.create = partial(wsgi.create, response_class=OneSendResponse)
        super().init_process()
