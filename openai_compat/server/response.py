"""Responses of gunicorn with coalesced writes and a write timeout, and error responses outside the application.

gunicorn sends the header block and the first bytes of the body with two system calls, and gevent's `sendall` adds
another one to each. `docs/internals/performance.md` lists what each change saves.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import ssl
import struct
from collections.abc import Iterable
from functools import lru_cache
from http.client import responses
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, cast

from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.http.message import TOKEN_RE

from openai_compat.core.errors import OpenAICompatError, to_envelope

if TYPE_CHECKING:
    from gunicorn.http.message import Request

log = logging.getLogger(__name__)

SMALL_BYTES: Final = 65_536
"""Size up to which copying bytes into one buffer costs less than a system call of their own."""


class CoalescedResponse(wsgi.Response):
    """Response that sends its header block together with the first bytes of the body."""

    _unsent_headers = b""
    _chunk_descriptor: int | None = None
    """Descriptor for writing chunks directly, set after the first write of a chunked body without TLS."""

    def __init__(self, req: Request, sock: socket.socket, cfg: Any, write_timeout: float | None) -> None:
        super().__init__(req, sock, cfg)
        self._write_timeout = write_timeout

    def default_headers(self) -> list[str]:
        """Return gunicorn's header lines without `Server`, which names the software to attackers."""
        status, _, *others = super().default_headers()
        return [status, *others]

    def process_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        """Check the response's headers as gunicorn does, and each name once for all responses."""
        checked = cast("list[tuple[str, str]]", self.headers)
        for name, value in headers:
            if _is_end_to_end(name) and isinstance(value, str) and wsgi.HEADER_VALUE_RE.fullmatch(value):
                checked.append((name, value.strip(" \t")))
            else:
                super().process_headers([(name, value)])

    def send_headers(self) -> None:
        if self.headers_sent:
            return
        lines = self.default_headers() + [f"{name}: {value}\r\n" for name, value in self.headers]
        self._unsent_headers = ("".join(lines) + "\r\n").encode("latin-1")
        self.headers_sent = True

    def write(self, arg: bytes) -> None:
        """Write a part of the body. A chunk of a running stream bypasses the checks of gunicorn and gevent."""
        if self._chunk_descriptor is None or not 0 < len(arg) < SMALL_BYTES:
            super().write(arg)
            return
        data = b"%X\r\n%s\r\n" % (len(arg), arg)
        try:
            sent = os.write(self._chunk_descriptor, data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._send_blocking(memoryview(data)[sent:])

    def _emit_body(self, data: bytes) -> None:
        """Send a part of the body, as gunicorn's `write` calls it after its checks."""
        headers, self._unsent_headers = self._unsent_headers, b""
        if len(data) > SMALL_BYTES:
            start, end = (b"%s%X\r\n" % (headers, len(data)), b"\r\n") if self.chunked else (headers, b"")
            for part in (start, data, end):
                self._send(part)
        else:
            self._send(b"%s%X\r\n%s\r\n" % (headers, len(data), data) if self.chunked else headers + data)
        if self.chunked and not isinstance(self.sock, ssl.SSLSocket):
            self._chunk_descriptor = self.sock.fileno()

    def can_sendfile(self) -> bool:
        """Return False, as `sendfile` would bypass `_emit_body` and lose the header block."""
        return False

    def _send(self, data: bytes) -> None:
        """Send `data`, which usually fits into the socket's buffer at once."""
        try:
            sent = self.sock.send(data, 0, 0.0)  # type: ignore[call-arg]  # gevent's extra argument: do not wait
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._send_blocking(memoryview(data)[sent:])

    def _send_blocking(self, data: memoryview) -> None:
        """Send `data` to a slow client.

        Raises:
            ConnectionResetError: The client read nothing for `write_timeout` seconds.
        """
        self.sock.settimeout(self._write_timeout)
        try:
            while data:
                data = data[self.sock.send(data) :]
        except TimeoutError as error:
            log.info("disconnected a client that had read nothing for %s s", self._write_timeout)
            # Discard unsent data at close, which the kernel would otherwise keep for minutes.
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise ConnectionResetError(errno.ECONNRESET, "the client stopped reading") from error
        self.sock.settimeout(None)

    def close(self) -> None:
        """Send the rest of the response."""
        self.send_headers()
        rest = self._unsent_headers + (b"0\r\n\r\n" if self.chunked else b"")
        if rest:
            self._unsent_headers = b""
            self._send(rest)


@lru_cache(maxsize=1024)
def _is_end_to_end(name: str) -> bool:
    """Return True for a valid name of a header that means nothing to gunicorn."""
    is_valid = isinstance(name, str) and TOKEN_RE.fullmatch(name) is not None
    return is_valid and name.lower() != "content-length" and not util.is_hoppish(name)


def write_envelope(sock: socket.socket, status_int: int, reason: str, mesg: str) -> None:
    """Send OpenAI's error body for a request that gunicorn rejects (too large headers, or no HTTP)."""
    is_client_error = status_int < 500
    message = f"{reason}: {mesg}" if is_client_error and mesg else reason
    _write(sock, status_int, to_envelope(message, "invalid_request_error" if is_client_error else "server_error"))


def write_error(sock: socket.socket, error: OpenAICompatError) -> None:
    """Send OpenAI's error body for a request that does not reach the application."""
    retry = f"Retry-After: {error.retry_after}\r\n" if error.retry_after is not None else ""
    _write(sock, error.status or 500, error.to_envelope(), retry)


def _write(sock: socket.socket, status: int, envelope: dict[str, Any], headers: str = "") -> None:
    body = json.dumps(envelope).encode()
    head = (
        f"HTTP/1.1 {status} {responses.get(status, '')}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nx-request-id: req_{token_hex(16)}\r\n{headers}\r\n"
    )
    util.write_nonblock(sock, head.encode("latin-1") + body)
