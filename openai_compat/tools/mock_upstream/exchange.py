"""One HTTP exchange with every byte under control: the request that was read, and the answer as it is being sent."""

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
REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True)
class Request:
    """A request as it came: the header names in lower case, a repeated header joined with a comma."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    http_version: str
    is_keep_alive: bool
    is_whole: bool


class RequestReader:
    """Reads one request from a connection; httptools calls the `on_` methods."""

    def __init__(self, connection: Connection) -> None:
        """Prepare to read from `connection`."""
        self._connection = connection
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._has_headers = False
        self._is_keep_alive = False
        self._is_continued = False
        self._is_whole = False

    def read(self) -> Request | None:
        """Return the next request, one that is not whole if the peer left while sending it, or None if none came."""
        while not self._is_whole:
            data = self._receive()
            if not data:
                break
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade:
                self._is_whole = True
            self._continue_if_asked()
        return self._to_request() if self._has_headers else None

    def _receive(self) -> bytes:
        """Return the next bytes, none if the peer left in whatever way."""
        try:
            data: bytes = self._connection.recv(65536)
        except ConnectionResetError:
            return b""
        return data

    def _continue_if_asked(self) -> None:
        """Answer `Expect: 100-continue`, once."""
        is_asked = self._has_headers and self._headers.get("expect", "").lower() == "100-continue"
        if is_asked and not self._is_continued and not self._is_whole:
            self._is_continued = True
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
            is_whole=self._is_whole,
        )

    def on_url(self, url: bytes) -> None:
        """Take a part of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        """Remember that the head is read; only now does the parser know whether to keep the connection."""
        self._has_headers = True
        self._is_keep_alive = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Remember that the whole request is read."""
        self._is_whole = True


class Exchange:
    """A request, and the means to answer it well or badly."""

    def __init__(self, connection: Connection, request: Request, number: int) -> None:
        """Begin answering `request`, the `number`-th of this server."""
        self.request = request
        self.is_complete = False
        self.is_keep_alive = request.is_keep_alive
        self._connection = connection
        self._is_chunked = False
        self._request_id = f"req_{number:032x}"

    def respond(self, status: int, content_type: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole answer in one write."""
        sized = {"content-length": str(len(body)), **(headers or {})}
        sent_body = b"" if self.request.method == "HEAD" or status in (204, 304) else body
        self.send_raw(self._head(status, content_type, sized) + sent_body)
        self.is_complete = True

    def start(self, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        """Send the head of a 200 whose body follows in chunks, or up to the connection's end for HTTP/1.0."""
        if self.request.http_version == "1.0":
            self.start_unframed(content_type)
            return
        self._is_chunked = True
        self.send_raw(self._head(200, content_type, {"transfer-encoding": "chunked", **(headers or {})}))

    def start_sized(self, content_type: str, length: int) -> None:
        """Send the head of a 200 that promises `length` bytes."""
        self.send_raw(self._head(200, content_type, {"content-length": str(length)}))

    def start_unframed(self, content_type: str) -> None:
        """Send the head of a 200 whose body ends with the connection."""
        self.is_keep_alive = False
        self.send_raw(self._head(200, content_type, {}))

    def send(self, data: bytes) -> None:
        """Send a part of the body in one write, as one chunk where the body is chunked."""
        self.send_raw(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    def send_half(self, data: bytes) -> None:
        """Begin to send a part of the body, and break off in the middle of it."""
        size = b"%x\r\n" % len(data) if self._is_chunked else b""
        self.send_raw(size + data[: len(data) // 2])

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._connection.sendall(data)

    def finish(self) -> None:
        """End the body as HTTP wants it: nobody can tell that something is missing."""
        if self._is_chunked:
            self.send_raw(b"0\r\n\r\n")
        self.is_complete = True

    def abandon(self) -> None:
        """Close the connection after what was sent so far."""
        self.is_keep_alive = False

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.is_keep_alive = False

    def pause(self, seconds: float) -> None:
        """Wait, while other exchanges go on; end at once if the peer leaves."""
        if seconds > 0:
            gevent.sleep(seconds)

    def hang(self) -> None:
        """Wait until the peer leaves."""
        gevent.event.Event().wait()

    def _head(self, status: int, content_type: str, headers: Mapping[str, str]) -> bytes:
        """Return the status line and the headers that every answer of OpenAI's has, and `headers`."""
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        lines += "" if self.is_keep_alive else "connection: close\r\n"
        return (
            f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}\r\ncontent-type: {content_type}\r\n"
            f"x-request-id: {self._request_id}\r\n{_OPENAI_HEADERS}{lines}\r\n"
        ).encode("latin-1")
