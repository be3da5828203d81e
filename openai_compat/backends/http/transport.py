"""A transport adapter for `requests`: HTTP/1.1 on kept-alive sockets, parsed by llhttp.

What the stock adapter cannot do and a gateway needs: a call that waits (for a connection, for the first byte, in the
middle of an answer) ends the moment its `CancellationToken` says so; the first byte, each pause and the whole call have
limits of their own; bytes are handed on as they arrive. It also costs a fraction (`docs/internals/performance.md`).

Whoever knows `requests` finds its exceptions: ConnectTimeout, ConnectionError, SSLError, ReadTimeout, and
ChunkedEncodingError for an answer that broke off. Redirects are not followed and no cookie is kept: an answer is
relayed, whatever it is. HTTP proxies are used when they are passed, for http and https; those of other kinds refused.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from time import monotonic
from typing import Any, Final

import httptools
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from requests.exceptions import (
    ConnectionError,
    ConnectTimeout,
    InvalidHeader,
    ProxyError,
    ReadTimeout,
    SSLError,
)

from .connect import Address, open_socket, parse_address, parse_proxy
from .pool import Connection, ConnectionPool, Deadlines, Origin, remaining
from .response_body import ResponseBody

REPEATABLE_METHODS: Final = frozenset({"GET", "HEAD"})
"""Without a body, safe to send twice; so are calls whose body is at hand: those are plain inference."""
STALE_WINDOW: Final = 1.0
"""A kept connection that its peer had closed fails within a round trip; one that fails later was at work."""
SMALL_BODY_BYTES: Final = 65_536
"""A body up to this size is sent in one piece with its head; a larger one is not copied for that."""


def _to_head(request: PreparedRequest, address: Address, origin: Origin) -> bytes:
    """The request line and headers, ready for the wire."""
    target, lines = address.target, [""]
    host = address.host_header
    if origin.proxy is not None and origin.scheme == "http":
        target = f"http://{address.host_header}{target}"
        if (authorization := parse_proxy(origin.proxy).authorization) is not None:
            lines.append(f"proxy-authorization: {authorization}\r\n")
    if address.authorization is not None and not any(name.lower() == "authorization" for name in request.headers):
        lines.append(f"authorization: {address.authorization}\r\n")
    for name, value in request.headers.items():
        if "\r" in value or "\n" in value or not name or not name.isascii():
            raise InvalidHeader(f"the header {name!r} cannot be sent")
        if len(name) == 4 and name.lower() == "host":
            host = value
        else:
            lines.append(f"{name}: {value}\r\n")
    lines[0] = f"{request.method} {target} HTTP/1.1\r\nHost: {host}\r\n"
    lines.append("\r\n")
    try:
        return "".join(lines).encode("latin-1")
    except UnicodeEncodeError as error:
        raise InvalidHeader("a header has characters that HTTP cannot carry") from error


class LlhttpAdapter(HTTPAdapter):
    """`send` with `timeout=Patience(...)`. `verify` is True or the file of the authorities to trust."""

    def __init__(self, most_idle: int = 1000) -> None:
        super().__init__()
        self._pool = ConnectionPool(most_idle)

    def send(
        self,
        request: PreparedRequest,
        stream: bool = True,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        patience = timeout if isinstance(timeout, Deadlines) else Deadlines()
        limits = patience.timeouts
        address = parse_address(request.url or "")
        origin = Origin(address.scheme, address.host, address.port, (proxies or {}).get(address.scheme))
        head = _to_head(request, address, origin)
        deadline = monotonic() + limits.total if limits.total else float("inf")
        body: Any = request.body
        # Only what can be sent again may go over a kept connection, which its peer may be about to close.
        may_repeat = isinstance(body, bytes) or (body is None and request.method in REPEATABLE_METHODS)
        connection = (self._pool.take(origin) if may_repeat else None) or self._connect(origin, patience, verify)
        try:
            self._exchange(connection, request, head, patience, deadline)
        except _StaleConnectionError:
            # Once, and not on another kept connection: a request that kills its peer would be sent over each of them.
            connection = self._connect(origin, patience, verify)
            self._exchange(connection, request, head, patience, deadline)
        return _to_response(request, connection, ResponseBody(connection, self._pool, patience, deadline), self)

    def close(self) -> None:
        super().close()
        self._pool.close()

    def _connect(self, origin: Origin, patience: Deadlines, verify: bool | str) -> Connection:
        try:
            return Connection(open_socket(origin, patience, verify), origin)
        except TimeoutError as error:
            raise ConnectTimeout("no connection within the time limit") from error
        except ProxyError:
            raise
        except (ssl.SSLError, ssl.CertificateError) as error:
            raise SSLError(f"no trusted connection: {error}") from error
        except (OSError, ValueError) as error:  # a ValueError (UnicodeError) is a host that cannot be a name: a..b
            raise NotConnectedError(f"no connection: {error}") from error

    def _exchange(
        self, connection: Connection, request: PreparedRequest, head: bytes, patience: Deadlines, deadline: float
    ) -> None:
        """Sends the request and reads up to the end of the answer's headers.

        Raises:
            _StaleConnectionError: the peer had closed the kept connection before it saw this request.
            ReadTimeout, ConnectionError: nothing, or no HTTP, came back.
            whatever the request's body raises when it is an iterator: no fault of the upstream's.
        """
        began = monotonic()
        connection.start(is_head=request.method == "HEAD")
        patience.cancellation.on_cancel(connection.abort)
        try:
            _send_request(connection.sock, head, request.body, patience.timeouts.idle)
            connection.set_read_timeout(remaining(patience.timeouts.first_byte, deadline))
            _await_headers(connection)
        except BaseException as error:
            patience.cancellation.remove_callback(connection.abort)
            connection.close()
            if isinstance(error, _BodyError):
                raise error.reason from error.reason.__cause__
            if isinstance(error, TimeoutError):
                raise ReadTimeout("no answer within the time limit") from error
            if isinstance(error, httptools.HttpParserError):
                raise ConnectionError(f"the answer is not HTTP: {error}") from error
            if isinstance(error, OSError):
                was_closed = connection.is_unanswered and monotonic() - began < STALE_WINDOW
                is_stale = connection.is_reused and was_closed and not patience.cancellation.is_cancelled
                raise (_StaleConnectionError if is_stale else ConnectionError)(f"no answer: {error}") from error
            raise


class NotConnectedError(ConnectionError):
    """No connection could be made, and nothing was sent."""


class _StaleConnectionError(ConnectionError):
    """A kept connection turned out to be closed: as far as can be told, nobody has begun with the request."""


class _BodyError(Exception):
    """The request's body could not be read to its end."""

    def __init__(self, reason: Exception) -> None:
        self.reason = reason


def _send_request(sock: socket.socket, head: bytes, body: Any, idle_seconds: float) -> None:
    """Sends all of it. A peer that answers and closes without reading on (413, 401) is not an error: its answer is
    waiting to be read.
    """
    sock.settimeout(idle_seconds or None)
    if body is None or isinstance(body, bytes):
        if body and len(body) > SMALL_BODY_BYTES:
            _ = _sent(sock, head) and _sent(sock, body)
        else:
            _sent(sock, head + (body or b""))
    elif _sent(sock, head):
        for block in _guard_request_body(body):
            if not _sent(sock, block):
                return


def _guard_request_body(body: Iterable[bytes]) -> Iterator[bytes]:
    """The body's blocks. A client's reset or time-out must not be read as the upstream's."""
    try:
        yield from body
    except Exception as error:
        raise _BodyError(error) from error


def _sent(sock: socket.socket, data: bytes) -> bool:
    """False where the peer reads no more; what it has to say is waiting."""
    try:
        # Most of the time all of it fits into the socket's buffer; gevent's `sendall` asks for the buffer's size first.
        if (sent := sock.send(data)) < len(data):
            sock.sendall(memoryview(data)[sent:])
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _await_headers(connection: Connection) -> None:
    """Reads until the answer has begun. What is wrong with it after its headers is found when its body is read."""
    while not connection.is_started:
        try:
            if not connection.receive():
                raise ConnectionResetError("the connection was closed before an answer")
        except httptools.HttpParserError:
            if not connection.is_started:
                raise


def in_chunks(body: Iterator[bytes]) -> Iterator[bytes]:
    """HTTP's chunked framing, for a body whose length nobody knows."""
    for block in body:
        if block:
            yield b"%x\r\n%b\r\n" % (len(block), block)
    yield b"0\r\n\r\n"


class _ResponseParser(Response):
    """Without the cookie jar, with its lock, that `requests` makes for each response: none is ever kept here."""

    def __init__(self) -> None:
        self._content = False  # type: ignore[assignment]  # as requests has it; its stubs say otherwise
        self._content_consumed = False
        self.encoding = None
        self.history = []


def _to_response(
    request: PreparedRequest, connection: Connection, body: ResponseBody, adapter: HTTPAdapter
) -> Response:
    response = _ResponseParser()
    response.status_code = connection.status
    response.headers = connection.headers  # type: ignore[assignment]  # names in lower case, as everything here has them
    response.raw = body
    response.request = request
    response.url = request.url or ""
    response.connection = adapter
    return response
