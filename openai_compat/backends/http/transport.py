"""Transport adapter for `requests` that speaks HTTP/1.1 over kept-alive sockets, parsed by llhttp.

It adds what a gateway needs and the stock adapter lacks. A `CancellationToken` ends a call in every wait (for the
connection, the first byte or the rest of the response). The first byte, each idle gap and the complete call have time
limits of their own. Bytes are passed on as they arrive. It also needs a fraction of the CPU time
(`docs/internals/performance.md`).

It raises the exceptions of `requests`: ConnectTimeout, ConnectionError, SSLError, ReadTimeout, and ChunkedEncodingError
for a truncated response. For a head that is not HTTP it raises NotHTTPError. It follows no redirects and keeps no
cookies, because responses are relayed unchanged. Only HTTP proxies are supported, for http and https.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from time import monotonic
from typing import Any, Final, NamedTuple

import httptools
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from requests.exceptions import (
    ConnectionError,
    ConnectTimeout,
    InvalidHeader,
    ProxyError,
    ReadTimeout,
    RequestException,
    SSLError,
)

from .connect import Address, open_socket, parse_address, parse_proxy
from .connection import Connection, Deadlines, Origin, remaining
from .pool import ConnectionPool
from .resend import SAFE_METHODS, ClosedConnectionError, may_send_again
from .response_body import ResponseBody

SMALL_BODY_BYTES: Final = 65_536
"""The largest body that is sent in one call with the header block. Larger ones are not copied for that."""


def _to_header_block(request: PreparedRequest, address: Address, origin: Origin) -> bytes:
    """Encode the request line and the headers.

    Raises:
        InvalidHeader: A header contains a line break or characters outside Latin-1.
    """
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
            raise InvalidHeader(f"the header {name!r} is invalid")
        if len(name) == 4 and name.lower() == "host":
            host = value
        else:
            lines.append(f"{name}: {value}\r\n")
    lines[0] = f"{request.method} {target} HTTP/1.1\r\nHost: {host}\r\n"
    lines.append("\r\n")
    try:
        return "".join(lines).encode("latin-1")
    except UnicodeEncodeError as error:
        raise InvalidHeader("a header has characters outside Latin-1") from error


class ConnectionCounts(NamedTuple):
    """Numbers of connections."""

    idle: int
    opened: int
    reused: int


class LlhttpAdapter(HTTPAdapter):
    """A transport adapter with a connection pool of up to `max_idle` idle connections for each origin."""

    def __init__(self, max_idle: int = 1000) -> None:
        super().__init__()
        self._pool = ConnectionPool(max_idle)
        self._opened = self._reused = 0

    def send(
        self,
        request: PreparedRequest,
        stream: bool = True,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """Send the request and return the response as soon as its headers have arrived.

        `timeout` is a `Deadlines`. `verify` is True or the path of a file with certificate authorities. `proxies` maps
        URL schemes to proxies. `stream` and `cert` are ignored.
        """
        deadlines = timeout if isinstance(timeout, Deadlines) else Deadlines()
        timeouts = deadlines.timeouts
        address = parse_address(request.url or "")
        origin = Origin(address.scheme, address.host, address.port, (proxies or {}).get(address.scheme))
        header_block = _to_header_block(request, address, origin)
        total_deadline = monotonic() + timeouts.total if timeouts.total else float("inf")
        body: Any = request.body
        # Only requests that can be sent again may use an idle connection, since the upstream may be closing it.
        is_repeatable = isinstance(body, bytes) or (body is None and request.method in SAFE_METHODS)
        resends = deadlines.resends if is_repeatable else None
        idle = self._pool.acquire(origin) if resends is not None else None
        if idle is not None:
            self._reused += 1
        connection = idle or self._connect(origin, deadlines, verify)
        try:
            self._exchange(connection, request, header_block, deadlines, total_deadline)
        except _StaleConnectionError:
            # Repeat once, on a new connection. A request that crashes its upstream must not go over each idle one.
            if resends is not None:
                resends.append(origin.host)
            connection = self._connect(origin, deadlines, verify)
            self._exchange(connection, request, header_block, deadlines, total_deadline)
        return _to_response(request, connection, ResponseBody(connection, self._pool, deadlines, total_deadline), self)

    def close(self) -> None:
        """Close the idle connections."""
        super().close()
        self._pool.close()

    def connection_counts(self) -> ConnectionCounts:
        """Return the numbers of connections that are idle, and that were opened and reused so far."""
        return ConnectionCounts(len(self._pool), self._opened, self._reused)

    def _connect(self, origin: Origin, deadlines: Deadlines, verify: bool | str) -> Connection:
        try:
            connection = Connection(open_socket(origin, deadlines, verify), origin)
            self._opened += 1
            return connection
        except TimeoutError as error:
            raise ConnectTimeout("the connect timeout expired") from error
        except ProxyError:
            raise
        except (ssl.SSLError, ssl.CertificateError) as error:
            raise SSLError(f"the TLS connection failed: {error}") from error
        except (OSError, ValueError) as error:  # ValueError (UnicodeError) for an invalid host name such as a..b
            raise NotConnectedError(f"the connection failed: {error}") from error

    def _exchange(
        self,
        connection: Connection,
        request: PreparedRequest,
        header_block: bytes,
        deadlines: Deadlines,
        total_deadline: float,
    ) -> None:
        """Send the request and read the response up to the end of its headers.

        An exception of the request body's iterator is raised unchanged, since it is not the upstream's failure.

        Raises:
            _StaleConnectionError: The reused connection failed, and the request may be sent again.
            ReadTimeout: The first-byte or the total timeout expired.
            ConnectionError: The connection failed.
            NotHTTPError: The response is not HTTP, or its head is too large.
        """
        connection.start(is_head=request.method == "HEAD")
        deadlines.cancellation.on_cancel(connection.abort)
        try:
            _send_request(connection, header_block, request.body, deadlines.timeouts.idle, total_deadline)
            _read_headers(connection, remaining(deadlines.timeouts.first_byte, total_deadline))
        except BaseException as error:
            deadlines.cancellation.remove_callback(connection.abort)
            is_stale = isinstance(error, OSError) and may_send_again(connection, request, error)
            connection.close()
            if isinstance(error, _RequestBodyError):
                raise error.reason from error.reason.__cause__
            if isinstance(error, TimeoutError):
                raise ReadTimeout("no response within the time limit") from error
            if isinstance(error, httptools.HttpParserError):
                raise NotHTTPError(f"the response is not HTTP: {error}") from error
            if isinstance(error, OSError):
                is_stale = is_stale and not deadlines.cancellation.is_cancelled
                raise (_StaleConnectionError if is_stale else ConnectionError)(f"no response: {error}") from error
            raise


class NotConnectedError(ConnectionError):
    """The connection could not be made, so nothing was sent."""


class NotHTTPError(RequestException):
    """The upstream answered with bytes that are not HTTP, or with too large a head."""


class _StaleConnectionError(ConnectionError):
    """A reused connection failed in a way that permits to send the request again."""


class _RequestBodyError(Exception):
    """The request body's iterator raised `reason`."""

    def __init__(self, reason: Exception) -> None:
        self.reason = reason


def _send_request(
    connection: Connection, header_block: bytes, body: Any, timeout: float, total_deadline: float
) -> None:
    """Send the request, with up to `timeout` seconds (0 for unlimited) for each step.

    Return early if the upstream stops reading. It may have sent an early response such as 413 or 401.
    """
    blocks: Iterable[bytes]
    if body is None or isinstance(body, bytes):
        blocks = (header_block, body) if body and len(body) > SMALL_BODY_BYTES else (header_block + (body or b""),)
    else:
        blocks = chain((header_block,), _guard_request_body(body))
    for block in blocks:
        rest: bytes | memoryview = block
        while rest:
            connection.sock.settimeout(remaining(timeout, total_deadline))
            try:
                sent = connection.sock.send(rest)
            except (BrokenPipeError, ConnectionResetError):
                return
            connection.sent_bytes += sent
            if sent == len(rest):  # most data fits into the socket's buffer
                break
            rest = memoryview(rest)[sent:]


def _guard_request_body(body: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the body's blocks. Wrap its errors, so that the client's reset or timeout is not taken for the upstream's.

    Raises:
        _RequestBodyError: The iterator raised an exception.
    """
    try:
        yield from body
    except Exception as error:
        raise _RequestBodyError(error) from error


def _read_headers(connection: Connection, seconds: float | None) -> None:
    """Read until the head of the final response is complete. Errors in the bytes after it are raised by later reads.

    Raises:
        TimeoutError: The head was not complete after `seconds`, although parts of it may have arrived.
    """
    deadline = float("inf") if seconds is None else monotonic() + seconds
    while not connection.headers_complete:
        connection.set_read_timeout(seconds)
        try:
            if not connection.receive():
                raise ClosedConnectionError("the connection was closed before a response")
        except httptools.HttpParserError:
            if not connection.headers_complete:
                raise
        if seconds is not None and not connection.headers_complete:
            seconds = deadline - monotonic()
            if seconds <= 0:
                raise TimeoutError("the head was not complete in time")


def encode_chunked(body: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a body of unknown length in HTTP's chunked transfer encoding."""
    for block in body:
        if block:
            yield b"%x\r\n%b\r\n" % (len(block), block)
    yield b"0\r\n\r\n"


class _CookielessResponse(Response):
    """A response without the cookie jar (and its lock) that `requests` makes for each response."""

    def __init__(self) -> None:
        self._content = False  # type: ignore[assignment]  # as in requests; its stubs differ
        self._content_consumed = False
        self.encoding = None
        self.history = []


def _to_response(
    request: PreparedRequest, connection: Connection, body: ResponseBody, adapter: HTTPAdapter
) -> Response:
    response = _CookielessResponse()
    response.status_code = connection.status
    response.headers = connection.headers  # type: ignore[assignment]  # a dict with names in lower case
    response.raw = body
    response.request = request
    response.url = request.url or ""
    response.connection = adapter
    return response
