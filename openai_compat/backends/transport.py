"""A transport adapter for `requests`: HTTP/1.1 on kept-alive sockets, parsed by llhttp.

What the stock adapter cannot do and a gateway needs: a call that waits (for a connection, for the first byte, in the
middle of an answer) ends the moment its `Cancellation` says so; the first byte, each pause and the whole call have
limits of their own; bytes are handed on as they arrive. It also costs a fraction (`docs/performance.md`).

Whoever knows `requests` finds its exceptions: ConnectTimeout, ConnectionError, SSLError, ReadTimeout, and
ChunkedEncodingError for an answer that broke off. Redirects are not followed and no cookie is kept: an answer is
relayed, whatever it is. Proxies for http and https are used when they are passed; SOCKS is not.
"""

from __future__ import annotations

import base64
import select
import socket
import ssl
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from time import monotonic
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

import httptools
from gevent.monkey import get_original
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from requests.exceptions import (
    ChunkedEncodingError,
    ConnectionError,
    ConnectTimeout,
    ContentDecodingError,
    InvalidHeader,
    InvalidURL,
    ProxyError,
    ReadTimeout,
    SSLError,
)
from requests.structures import CaseInsensitiveDict

from ..settings import Timeouts
from ..streams import Cancellation

RECEIVE_BYTES: Final = 65_536
MOST_HEADER_BYTES: Final = 256 * 1024
IDLE_SECONDS: Final = 50.0
"""A connection unused for longer is not used again: many servers and balancers drop theirs after 60 s."""
SMALL_BODY_BYTES: Final = 65_536
"""A body up to this size is sent in one piece with its head; a larger one is not copied for that."""
LAST_BYTES_SECONDS: Final = 0.05
"""How long the end of the framing may lag behind the last event before the connection is given up."""

# The original, not gevent's: asked without waiting, it is one system call instead of a turn of the event loop.
poll = get_original("select", "poll")


@dataclass(frozen=True, slots=True)
class Patience:
    """What `send` takes as its `timeout`: how long each step may last, and what ends every wait at once.

    After `silence_seconds` of quiet in an answer, `read1` returns None; 0 for never.
    """

    timeouts: Timeouts = Timeouts()
    cancellation: Cancellation = field(default_factory=Cancellation)
    silence_seconds: float = 0.0


class Origin(NamedTuple):
    """What a connection is made to, and what makes two requests able to share one."""

    scheme: str
    host: str
    port: int
    proxy: str | None


class _Address(NamedTuple):
    scheme: str
    host: str
    port: int
    host_header: str
    target: str


@lru_cache(maxsize=512)
def _parse_address(url: str) -> _Address:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidURL("an upstream's URL needs http:// or https:// and a host")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise InvalidURL("the port of an upstream's URL is not a number") from error
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or any(character <= " " for character in target):
        raise InvalidURL("an upstream's URL must be percent-encoded")
    return _Address(parts.scheme, parts.hostname, port, parts.netloc.rpartition("@")[2], target)


def _to_head(request: PreparedRequest, address: _Address, origin: Origin) -> bytes:
    """The request line and headers, ready for the wire."""
    is_absolute = origin.proxy is not None and origin.scheme == "http"
    target = f"http://{address.host_header}{address.target}" if is_absolute else address.target
    lines = [f"{request.method} {target} HTTP/1.1\r\nHost: {address.host_header}\r\n"]
    for name, value in request.headers.items():
        if "\r" in value or "\n" in value or not name or not name.isascii():
            raise InvalidHeader(f"the header {name!r} cannot be sent")
        lines.append(f"{name}: {value}\r\n")
    lines.append("\r\n")
    try:
        return "".join(lines).encode("latin-1")
    except UnicodeEncodeError as error:
        raise InvalidHeader("a header has characters that HTTP cannot carry") from error


class Connection:
    """A socket, the parser of what comes from it, and the state of the one exchange under way."""

    __slots__ = (
        "_header_bytes", "_is_readable", "_parser", "body", "headers", "idle_since", "is_complete", "is_head", "is_kept",
        "is_reused", "is_started", "origin", "sock", "status",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, origin: Origin) -> None:
        self.sock = sock
        self.origin = origin
        self.is_reused = False
        self.idle_since = 0.0
        self._is_readable = poll()
        self._is_readable.register(sock.fileno(), select.POLLIN)
        self._parser = httptools.HttpResponseParser(self)
        self.start(is_head=False)

    def start(self, *, is_head: bool) -> None:
        """Makes ready for the next exchange."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []
        self.is_head = is_head
        self.is_started = self.is_complete = self.is_kept = False
        self._header_bytes = 0

    def is_usable(self, now: float) -> bool:
        """An idle connection on which something arrived was closed by the peer, or is out of step."""
        return now - self.idle_since < IDLE_SECONDS and not self._is_readable.poll(0)

    def abort(self) -> None:
        """Wakes whoever waits for this connection, from any thread or greenlet."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it was closed already, which is all that is wanted

    def close(self) -> None:
        self.sock.close()

    def receive(self) -> bool:
        """Takes in what has arrived, waiting for it if nothing has; False at the end of the stream.

        Raises:
            TimeoutError, OSError: the socket's own. httptools.HttpParserError: what came is not HTTP.
        """
        data = self.sock.recv(RECEIVE_BYTES)
        if not data:
            return False
        if not self.headers:
            self._header_bytes += len(data)
            if self._header_bytes > MOST_HEADER_BYTES:
                raise httptools.HttpParserError("its headers are too large")
        self._parser.feed_data(data)
        return True

    # What the parser calls, in this order. Interim answers (100, 103) come as messages of their own.

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status >= 200:
            self.is_started = True
            self.is_kept = self._parser.should_keep_alive()
            if self.is_head:
                self.is_complete, self.is_kept = True, False

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        if self.status >= 200:
            self.is_complete = True
        else:
            self.headers = {}

    @property
    def ends_with_connection(self) -> bool:
        """Neither a length nor chunks: the answer is whole when the peer closes."""
        return "content-length" not in self.headers and "chunked" not in self.headers.get("transfer-encoding", "")


class Body:
    """The answer's body as it arrives: what `Response.raw` is."""

    def __init__(self, connection: Connection, pool: Pool, patience: Patience, deadline: float) -> None:
        self._connection: Connection | None = connection
        self._pool = pool
        self._patience = patience
        self._deadline = deadline
        self._quiet_seconds = 0.0
        encoding = connection.headers.get("content-encoding", "").lower()
        # 47 lets zlib tell gzip from deflate by itself. We ask for neither: a peer that compresses does so unasked.
        self._decoder = zlib.decompressobj(47) if encoding in {"gzip", "x-gzip", "deflate"} else None

    def read1(self, _amount: int = -1) -> bytes | None:
        """The next bytes there are; b"" at the end, None when the silence lasted for `silence_seconds`.

        Raises:
            ReadTimeout: quiet for too long, or the whole call took too long.
            ChunkedEncodingError: the answer broke off before its end.
            ContentDecodingError: it is not compressed as it says.
        """
        connection = self._connection
        if connection is None:
            return b""
        while not connection.body:
            if connection.is_complete:
                self.close()
                return b""
            if not self._receive(connection):
                return None
        data = connection.body[0] if len(connection.body) == 1 else b"".join(connection.body)
        connection.body.clear()
        return data if self._decoder is None else self._decoded(data) or self.read1()

    def _receive(self, connection: Connection) -> bool:
        """Waits for more; False when it was silent for so long that the caller should hear of it."""
        limits = self._patience.timeouts
        wait = self._patience.silence_seconds or limits.idle
        if limits.idle:
            wait = min(wait, max(limits.idle - self._quiet_seconds, 0.001))
        connection.sock.settimeout(_bounded(wait, self._deadline))
        try:
            has_more = connection.receive()
        except TimeoutError as error:
            return self._was_silent(wait, error)
        except (OSError, httptools.HttpParserError) as error:
            raise self._broken(error) from error
        self._quiet_seconds = 0.0
        if not has_more:
            self._end(connection)
        return True

    def _was_silent(self, seconds: float, error: Exception) -> bool:
        self._quiet_seconds += seconds
        idle = self._patience.timeouts.idle
        if monotonic() >= self._deadline or (idle and self._quiet_seconds >= idle):
            self._abandon()
            raise ReadTimeout("the answer stopped for too long") from error
        return False

    def _end(self, connection: Connection) -> None:
        if self._patience.cancellation.is_cancelled or not connection.ends_with_connection:
            raise self._broken(None)
        connection.is_complete, connection.is_kept = True, False

    def _broken(self, error: Exception | None) -> ChunkedEncodingError:
        self._abandon()
        return ChunkedEncodingError(f"the answer broke off: {error or 'the connection was closed'}")

    def _decoded(self, data: bytes) -> bytes:
        assert self._decoder is not None
        try:
            return self._decoder.decompress(data)
        except zlib.error as error:
            self._abandon()
            raise ContentDecodingError("the answer is not compressed as it says") from error

    def close(self) -> None:
        """Ends the exchange: a whole answer gives its connection back, any other breaks it off."""
        connection = self._connection
        if connection is None:
            return
        if not connection.is_complete:
            self._await_last_bytes(connection)
        if connection.is_complete and connection.is_kept and not connection.body:
            self._connection = None
            self._patience.cancellation.forget(connection.abort)
            self._pool.give_back(connection)
        else:
            self._abandon()

    def _await_last_bytes(self, connection: Connection) -> None:
        """A reader that saw the last event stops reading; the end of the framing is then a moment away."""
        if self._patience.cancellation.is_cancelled or not self._has_seen_end:
            return
        connection.sock.settimeout(LAST_BYTES_SECONDS)
        try:
            connection.receive()
        except (OSError, httptools.HttpParserError):
            return  # it is broken off by the caller

    _has_seen_end = False

    def close_after_end(self) -> None:
        """`close`, for a reader that knows by the content that all of it has come."""
        self._has_seen_end = True
        self.close()

    def _abandon(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._patience.cancellation.forget(connection.abort)
            connection.close()

    release_conn = close
    """The name that `requests.Response.close` knows."""


class Pool:
    """Connections that wait for their next request: the last one used is the first one taken."""

    def __init__(self, most_idle: int) -> None:
        self._most_idle = most_idle
        self._idle: dict[Origin, deque[Connection]] = {}

    def take(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin)
        now = monotonic()
        while idle:
            connection = idle.pop()
            if connection.is_usable(now):
                connection.is_reused = True
                return connection
            connection.close()
        return None

    def give_back(self, connection: Connection) -> None:
        idle = self._idle.setdefault(connection.origin, deque())
        connection.idle_since = monotonic()
        idle.append(connection)
        while len(idle) > self._most_idle or idle[0].idle_since < connection.idle_since - IDLE_SECONDS:
            idle.popleft().close()

    def close(self) -> None:
        for idle in self._idle.values():
            while idle:
                idle.pop().close()


class LlhttpAdapter(HTTPAdapter):
    """`send` with `timeout=Patience(...)`. `verify` is True or the file of the authorities to trust."""

    def __init__(self, most_idle: int = 1000) -> None:
        super().__init__()
        self._pool = Pool(most_idle)

    def send(
        self,
        request: PreparedRequest,
        stream: bool = True,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        patience = timeout if isinstance(timeout, Patience) else Patience()
        limits = patience.timeouts
        address = _parse_address(request.url or "")
        origin = Origin(address.scheme, address.host, address.port, (proxies or {}).get(address.scheme))
        head = _to_head(request, address, origin)
        deadline = monotonic() + limits.total if limits.total else float("inf")
        body: Any = request.body
        while True:
            connection = self._pool.take(origin) or self._connect(origin, patience, verify)
            try:
                self._exchange(connection, request, head, patience, deadline)
                break
            except _StaleConnectionError:
                if body is not None and not isinstance(body, bytes):
                    raise
        return _to_response(request, connection, Body(connection, self._pool, patience, deadline), self)

    def close(self) -> None:
        super().close()
        self._pool.close()

    def _connect(self, origin: Origin, patience: Patience, verify: bool | str) -> Connection:
        try:
            return Connection(_open_socket(origin, patience, verify), origin)
        except TimeoutError as error:
            raise ConnectTimeout("no connection within the time limit") from error
        except (ssl.SSLError, ssl.CertificateError) as error:
            raise SSLError(f"no trusted connection: {error}") from error
        except OSError as error:
            raise ConnectionError(f"no connection: {error}") from error

    def _exchange(
        self, connection: Connection, request: PreparedRequest, head: bytes, patience: Patience, deadline: float
    ) -> None:
        """Sends the request and reads up to the end of the answer's headers.

        Raises:
            _StaleConnectionError: the peer had closed the kept connection before it saw this request.
            ReadTimeout, ConnectionError: nothing, or no HTTP, came back.
        """
        connection.start(is_head=request.method == "HEAD")
        patience.cancellation.on_cancel(connection.abort)
        try:
            _send_request(connection.sock, head, request.body, patience.timeouts.idle)
            connection.sock.settimeout(_bounded(patience.timeouts.first_byte, deadline))
            while not connection.is_started:
                if not connection.receive():
                    raise ConnectionResetError("the connection was closed before an answer")
        except BaseException as error:
            patience.cancellation.forget(connection.abort)
            connection.close()
            if isinstance(error, TimeoutError):
                raise ReadTimeout("no answer within the time limit") from error
            if isinstance(error, httptools.HttpParserError):
                raise ConnectionError(f"the answer is not HTTP: {error}") from error
            if isinstance(error, OSError):
                is_stale = connection.is_reused and not connection.headers and not patience.cancellation.is_cancelled
                raise (_StaleConnectionError if is_stale else ConnectionError)(f"no answer: {error}") from error
            raise


class _StaleConnectionError(ConnectionError):
    """A kept connection turned out to be closed: the request did not reach anyone."""


def _bounded(seconds: float, deadline: float) -> float | None:
    """A socket's timeout that ends at the deadline at the latest; None for no limit at all."""
    if deadline == float("inf"):
        return seconds or None
    left = max(deadline - monotonic(), 0.001)
    return min(seconds, left) if seconds else left


def _send_request(sock: socket.socket, head: bytes, body: Any, idle_seconds: float) -> None:
    """Sends all of it. A peer that answers and closes without reading on (413, 401) is not an error: its answer is
    waiting to be read.
    """
    sock.settimeout(idle_seconds or None)
    try:
        if body is None or isinstance(body, bytes):
            if body and len(body) > SMALL_BODY_BYTES:
                sock.sendall(head)
                sock.sendall(body)
            else:
                sock.sendall(head + (body or b""))
            return
        sock.sendall(head)
        for block in body:
            sock.sendall(block)
    except (BrokenPipeError, ConnectionResetError):
        return


def in_chunks(body: Iterator[bytes]) -> Iterator[bytes]:
    """HTTP's chunked framing, for a body whose length nobody knows."""
    for block in body:
        if block:
            yield b"%x\r\n%b\r\n" % (len(block), block)
    yield b"0\r\n\r\n"


def _open_socket(origin: Origin, patience: Patience, verify: bool | str) -> socket.socket:
    limit = patience.timeouts.connect or None
    deadline = monotonic() + limit if limit else float("inf")
    proxy = urlsplit(origin.proxy) if origin.proxy else None
    peer = (origin.host, origin.port) if proxy is None else (proxy.hostname or "", proxy.port or 8080)
    sock = socket.create_connection(peer, timeout=limit)
    try:
        patience.cancellation.raise_if_cancelled()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(_bounded(0, deadline))
        if origin.scheme == "https":
            if proxy is not None:
                _open_tunnel(sock, origin, proxy.username, proxy.password)
            sock = _tls_context(verify).wrap_socket(sock, server_hostname=origin.host)
    except BaseException:
        sock.close()
        raise
    return sock


def _open_tunnel(sock: socket.socket, origin: Origin, user: str | None, password: str | None) -> None:
    """Asks an HTTP proxy for a way through to the origin."""
    peer = f"{origin.host}:{origin.port}"
    head = f"CONNECT {peer} HTTP/1.1\r\nHost: {peer}\r\n"
    if user is not None:
        credentials = base64.b64encode(f"{unquote(user)}:{unquote(password or '')}".encode()).decode()
        head += f"Proxy-Authorization: Basic {credentials}\r\n"
    sock.sendall(f"{head}\r\n".encode("latin-1"))
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = sock.recv(4096)
        answer += data
        if not data or len(answer) > MOST_HEADER_BYTES:
            raise ProxyError("the proxy gave no answer")
    status = answer.split(b" ", 2)[1:2]
    if status != [b"200"]:
        raise ProxyError("the proxy refused the connection")


@lru_cache(maxsize=8)
def _tls_context(verify: bool | str) -> ssl.SSLContext:
    """Made once: reading the authorities takes tens of milliseconds."""
    if isinstance(verify, str):
        return ssl.create_default_context(cafile=verify)
    from requests.certs import where

    return ssl.create_default_context(cafile=where())


def _to_response(request: PreparedRequest, connection: Connection, body: Body, adapter: HTTPAdapter) -> Response:
    response = Response()
    response.status_code = connection.status
    response.headers = CaseInsensitiveDict(connection.headers)
    response.raw = body
    response.request = request
    response.url = request.url or ""
    response.connection = adapter  # type: ignore[attr-defined]  # requests sets it too; its stubs do not know it
    return response
