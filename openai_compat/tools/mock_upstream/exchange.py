"""HTTP exchanges with control over every byte of the response."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import gevent
import gevent.event
import httptools
from gevent.socket import socket as Connection

from openai_compat.core.anthropic import VERSION_HEADER

_OPENAI_HEADERS = (
    "openai-organization: mock-organization\r\n"
    "openai-processing-ms: 12\r\n"
    "openai-version: 2020-10-01\r\n"
    "x-ratelimit-limit-requests: 10000\r\n"
    "x-ratelimit-limit-tokens: 200000\r\n"
    "x-ratelimit-remaining-requests: 9999\r\n"
    "x-ratelimit-remaining-tokens: 199990\r\n"
    "x-ratelimit-reset-requests: 8.64s\r\n"
    "x-ratelimit-reset-tokens: 3ms\r\n"
    "set-cookie: __cf_bm=mock-cookie; path=/; HttpOnly\r\n"
    "x-internal-secret: do-not-relay\r\n"
)
_ANTHROPIC_HEADERS = (
    "anthropic-organization-id: mock-organization\r\n"
    "anthropic-ratelimit-requests-limit: 50\r\n"
    "anthropic-ratelimit-requests-remaining: 49\r\n"
    "set-cookie: __cf_bm=mock-cookie; path=/; HttpOnly\r\n"
)
REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True)
class Request:
    """A request. Header names are in lower case, and repeated headers are joined with commas."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    http_version: str
    is_keep_alive: bool
    is_complete: bool


class RequestReader:
    """Reader of one request. httptools calls the `on_` methods."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._has_headers = False
        self._is_keep_alive = False
        self._sent_continue = False
        self._is_complete = False

    def read(self) -> Request | None:
        """Return the next request, None if there is none.

        The request is incomplete if the client disconnected while sending it.
        """
        while not self._is_complete:
            data = self._receive()
            if not data:
                break
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade:
                self._is_complete = True
            self._send_continue()
        return self._to_request() if self._has_headers else None

    def _receive(self) -> bytes:
        """Return the next bytes, or empty bytes if the client has disconnected."""
        try:
            data: bytes = self._connection.recv(65536)
        except ConnectionResetError:
            return b""
        return data

    def _send_continue(self) -> None:
        """Send a 100 response once if the request expects it."""
        expects_continue = self._has_headers and self._headers.get("expect", "").lower() == "100-continue"
        if expects_continue and not self._sent_continue and not self._is_complete:
            self._sent_continue = True
            self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _to_request(self) -> Request:
        path, _, query = self._url.decode("latin-1").partition("?")
        return Request(
            method=self._parser.get_method().decode("ascii"),
            path=path,
            query=query,
            headers=self._headers,
            body=b"".join(self._body),
            http_version=self._parser.get_http_version(),
            is_keep_alive=self._is_keep_alive,
            is_complete=self._is_complete,
        )

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        """Record the end of the header block, where the parser first knows whether to keep the connection."""
        self._has_headers = True
        self._is_keep_alive = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._is_complete = True


class Exchange:
    """A request and its response, which can be sent correctly or with faults."""

    def __init__(self, connection: Connection, request: Request, number: int) -> None:
        """Prepare the response to `request`. The request id contains `number`."""
        self.request = request
        self.is_complete = False
        self.is_keep_alive = request.is_keep_alive
        self._connection = connection
        self._is_chunked = False
        self._request_id = f"req_{number:032x}"

    def respond(self, status: int, content_type: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a complete response in one write."""
        sized = {"content-length": str(len(body)), **(headers or {})}
        sent_body = b"" if self.request.method == "HEAD" or status in (204, 304) else body
        self.send_raw(self._header_block(status, content_type, sized) + sent_body)
        self.is_complete = True

    def start(self, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        """Send the header block of a 200 with a chunked body. For HTTP/1.0, the body ends with the connection."""
        if self.request.http_version == "1.0":
            self.start_unframed(content_type)
            return
        self._is_chunked = True
        self.send_raw(self._header_block(200, content_type, {"transfer-encoding": "chunked", **(headers or {})}))

    def start_sized(self, content_type: str, length: int) -> None:
        """Send the header block of a 200 with a content-length."""
        self.send_raw(self._header_block(200, content_type, {"content-length": str(length)}))

    def start_unframed(self, content_type: str) -> None:
        """Send the header block of a 200 whose body ends with the connection."""
        self.is_keep_alive = False
        self.send_raw(self._header_block(200, content_type, {}))

    def send(self, data: bytes) -> None:
        """Send a part of the body in one write, as one HTTP chunk if the body is chunked."""
        self.send_raw(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    def send_half(self, data: bytes) -> None:
        """Send the first half of a part of the body."""
        size = b"%x\r\n" % len(data) if self._is_chunked else b""
        self.send_raw(size + data[: len(data) // 2])

    def send_raw(self, data: bytes) -> None:
        """Send bytes unchanged."""
        self._connection.sendall(data)

    def finish(self) -> None:
        """End the body properly, so that HTTP does not show that something is missing."""
        if self._is_chunked:
            self.send_raw(b"0\r\n\r\n")
        self.is_complete = True

    def close_early(self) -> None:
        """Close the connection without ending the body."""
        self.is_keep_alive = False

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.is_keep_alive = False

    def pause(self, seconds: float) -> None:
        """Wait while other exchanges continue. A client disconnect ends the wait."""
        if seconds > 0:
            gevent.sleep(seconds)

    def hang(self) -> None:
        """Wait until the client disconnects."""
        gevent.event.Event().wait()

    def _header_block(self, status: int, content_type: str, headers: Mapping[str, str]) -> bytes:
        """Return the status line, the headers of every response of OpenAI or Anthropic, and `headers`."""
        is_anthropic = VERSION_HEADER in self.request.headers
        vendor = f"request-id: {self._request_id}\r\n{_ANTHROPIC_HEADERS}" if is_anthropic else _OPENAI_HEADERS
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        lines += "" if self.is_keep_alive else "connection: close\r\n"
        return (
            f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}\r\ncontent-type: {content_type}\r\n"
            f"x-request-id: {self._request_id}\r\n{vendor}{lines}\r\n"
        ).encode("latin-1")
