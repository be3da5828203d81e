"""What this server changes about gunicorn: fewer system calls, its own errors in the envelope, careful reloads.

gunicorn sends the head of an answer and its first bytes one after the other, and gevent's `sendall` asks for the size
of the socket's buffer each time; `docs/performance.md` has what that cost.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, Final

from gevent.server import StreamServer
from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.workers.ggevent import GeventWorker

from .errors import to_envelope
from .heads import quicken

if TYPE_CHECKING:
    import socket

    from gunicorn.arbiter import Arbiter

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

    def write(self, arg: bytes) -> None:
        """The next piece of the body. One of a stream under way needs none of what gunicorn looks at."""
        if arg and self.chunked and self.headers_sent and not self._head and len(arg) < SMALL_BYTES:
            self._send(b"%X\r\n%s\r\n" % (len(arg), arg))
        else:
            super().write(arg)

    def _emit_body(self, data: bytes) -> None:
        """What gunicorn calls to put a piece of the body on the wire."""
        head, self._head = self._head, b""
        if len(data) > SMALL_BYTES:
            start, end = (b"%s%X\r\n" % (head, len(data)), b"\r\n") if self.chunked else (head, b"")
            for piece in (start, data, end):
                self._send(piece)
        else:
            self._send(b"%s%X\r\n%s\r\n" % (head, len(data), data) if self.chunked else head + data)

    def can_sendfile(self) -> bool:
        """It would go past `_emit_body`, and leave the head behind."""
        return False

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


def write_envelope(sock: socket.socket, status_int: int, reason: str, mesg: str) -> None:
    """What gunicorn refuses before any application sees it (a head that is too long or no HTTP), in OpenAI's words."""
    is_theirs = status_int < 500
    message = f"{reason}: {mesg}" if is_theirs and mesg else reason
    envelope = to_envelope(message, "invalid_request_error" if is_theirs else "server_error")
    body = json.dumps(envelope).encode()
    head = (
        f"HTTP/1.1 {status_int} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nx-request-id: req_{token_hex(16)}\r\n\r\n"
    )
    util.write_nonblock(sock, head.encode("latin-1") + body)


class Worker(GeventWorker):
    """What `gunicorn.conf.py` names as its `worker_class`."""

    def init_process(self) -> None:
        self.adapt_gunicorn()
        _open_as_many_files_as_allowed()
        super().init_process()

    def adapt_gunicorn(self) -> None:
        """What gunicorn has no settings for, in this process."""
        quicken(self.cfg)
        # Of many callers who come at once, the first are answered while others are still taken in. With gevent's own
        # hundred all are taken in before anyone is answered; with one, the last wait far too long.
        StreamServer.max_accept = 10
        wsgi.create = partial(wsgi.create, response_class=OneSendResponse)
        util.write_error = write_envelope


def _open_as_many_files_as_allowed() -> None:
    """Each stream needs two sockets, and the usual limit of 1024 is a soft one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def reload_with_care(arbiter: Arbiter) -> None:
    """Makes a SIGHUP with a configuration that is wrong a line in the log: the old workers go on serving.

    gunicorn itself would replace them by workers that cannot start, and then give up.
    """
    reload = arbiter.handle_hup

    def handle_hup() -> None:
        command = [sys.executable, "-m", "openai_compat", "check-config"]
        check = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no word is foreign
        if check.returncode == 0:
            reload()
        elif arbiter.log is not None:
            arbiter.log.error("not reloaded: %s", check.stderr.strip())

    arbiter.handle_hup = handle_hup  # type: ignore[method-assign]  # gunicorn looks the handler up by its name
