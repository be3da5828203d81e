"""Connections to upstreams over TCP, TLS, HTTP proxies and Unix sockets."""

from __future__ import annotations

import base64
import socket
import ssl
import time
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import certifi
from requests.exceptions import InvalidURL, ProxyError

from openai_compat.core.cancellation import CancellationToken

from .connection import MAX_HEADER_BYTES, Deadlines, Origin, shut_down

UNIX = "http+unix://"
SocketAddress = tuple[socket.AddressFamily, tuple[Any, ...]]


class Address(NamedTuple):
    """The parts of a request's URL. `authorization` is the `Basic` value of its user and password, or None."""

    scheme: str
    host: str
    port: int
    host_header: str
    target: str
    authorization: str | None


@lru_cache(maxsize=512)
def parse_address(url: str) -> Address:
    """Split an `http`, `https` or `http+unix` URL.

    Raises:
        InvalidURL: The URL cannot be used. The error does not repeat the URL, which may contain a password.
    """
    if url.startswith(UNIX):
        return _parse_unix_address(url)
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:  # its text may repeat a password
        raise InvalidURL("the host or the port of the upstream's URL is invalid") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidURL("the upstream's URL needs http:// or https:// and a host")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or any(character <= " " for character in target):
        raise InvalidURL("the upstream's URL must be percent-encoded")
    host_header = parts.netloc.rpartition("@")[2]
    authorization = basic_authorization(parts.username, parts.password)
    return Address(parts.scheme, parts.hostname, port, host_header, target, authorization)


def _parse_unix_address(url: str) -> Address:
    """Split `http+unix://%2Frun%2Fengine.sock/path`, whose host is the percent-encoded path of the socket."""
    host, slash, path = url.removeprefix(UNIX).partition("/")
    return Address("http+unix", unquote(host), 0, "localhost", slash + path, None)


class Proxy(NamedTuple):
    """An HTTP proxy. `authorization` is the value of `Proxy-Authorization`, or None."""

    host: str
    port: int
    authorization: str | None


@lru_cache(maxsize=64)
def parse_proxy(url: str) -> Proxy:
    """Split a proxy's URL in the form of `HTTP_PROXY`. The default scheme is `http`.

    Raises:
        ProxyError: The URL is invalid or names another kind of proxy. The error does not repeat the URL, which may
            contain a password.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or 80
    except ValueError:  # its text may repeat the password
        raise ProxyError("the proxy's URL is invalid") from None
    if parts.scheme != "http" or not parts.hostname:
        raise ProxyError("only HTTP proxies are supported (http://host:port)")
    return Proxy(parts.hostname, port, basic_authorization(parts.username, parts.password))


def basic_authorization(user: str | None, password: str | None) -> str | None:
    """Return the `Basic` value for the percent-encoded user and password of a URL, or None without a user."""
    if user is None:
        return None
    credentials = f"{unquote(user)}:{unquote(password or '')}"
    return f"Basic {base64.b64encode(credentials.encode()).decode()}"


def open_socket(origin: Origin, deadlines: Deadlines, verify: bool | str) -> socket.socket:
    """Connect to the origin, directly or through its proxy, with TLS for `https`.

    The connect timeout covers all addresses of the host together. The TCP connect to each address may use an equal
    share of the remaining time, and the steps after it all of the remaining time.

    Raises:
        TimeoutError: The connect timeout expired.
        ssl.SSLError: The TLS handshake failed or the certificate is not trusted.
        ProxyError: The proxy is not supported or refused the connection.
        OSError: The host could not be resolved or reached.
        ValueError: The host is not a valid name.
        CallCancelledError: The call was cancelled. A step in progress can raise any OSError instead.
    """
    if origin.scheme == "http+unix":
        return _open_unix_socket(origin.host)
    limit = deadlines.timeouts.connect
    deadline = time.monotonic() + limit if limit else float("inf")
    proxy = parse_proxy(origin.proxy) if origin.proxy else None
    addresses = _resolve(*(proxy[:2] if proxy else (origin.host, origin.port)))
    failure: OSError = OSError("the host has no address")
    for index, address in enumerate(addresses):
        deadlines.cancellation.raise_if_cancelled()
        connector = _Connector(origin, proxy, deadlines.cancellation, deadline)
        try:
            return connector.connect(address, verify, _attempt_deadline(deadline, len(addresses) - index))
        except (ssl.SSLError, ProxyError):
            raise
        except OSError as error:
            failure = error
    raise failure


def _open_unix_socket(path: str) -> socket.socket:
    """Connect to a Unix socket without a time limit, since the kernel answers at once."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _resolve(host: str, port: int) -> list[SocketAddress]:
    """Return the addresses of a host. IP addresses skip the lookup, which needs a thread under gevent."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            socket.inet_pton(family, host)
            return [(family, (host, port))]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


def _attempt_deadline(deadline: float, addresses: int) -> float:
    """Return the deadline for the first of the remaining addresses, so that a dead one leaves time for the others."""
    now = time.monotonic()
    return now + (deadline - now) / addresses


def _seconds_until(deadline: float) -> float | None:
    """Return the socket timeout for a deadline (None for infinity). Raise TimeoutError if it has passed."""
    if deadline == float("inf"):
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the connect timeout expired")
    return left


class _Connector:
    """One attempt to connect to one address. A cancellation ends it in any step."""

    def __init__(self, origin: Origin, proxy: Proxy | None, cancellation: CancellationToken, deadline: float) -> None:
        self._origin = origin
        self._proxy = proxy
        self._cancellation = cancellation
        self._deadline = deadline

    def connect(self, address: SocketAddress, verify: bool | str, connect_by: float) -> socket.socket:
        family, endpoint = address
        self._sock = socket.socket(family, socket.SOCK_STREAM)
        self._cancellation.on_cancel(self._abort)
        try:
            self._sock.settimeout(_seconds_until(connect_by))
            self._sock.connect(endpoint)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._origin.scheme == "https":
                self._start_tls(verify)
            self._cancellation.raise_if_cancelled()
        except BaseException:
            self._sock.close()
            raise
        finally:
            self._cancellation.remove_callback(self._abort)
        return self._sock

    def _start_tls(self, verify: bool | str) -> None:
        if self._proxy is not None:
            _open_tunnel(self._sock, self._origin, self._proxy.authorization, self._deadline)
        wrapped = _tls_context(verify).wrap_socket(
            self._sock, server_hostname=self._origin.host, do_handshake_on_connect=False
        )
        self._sock = wrapped
        self._cancellation.raise_if_cancelled()  # during the wrapping, `_abort` found a socket without descriptor
        wrapped.settimeout(_seconds_until(self._deadline))
        wrapped.do_handshake()

    def _abort(self) -> None:
        """Wake the connecting greenlet or thread. A socket that is not connecting yet is closed, so it never will."""
        try:
            shut_down(self._sock)
        except OSError:
            self._sock.close()


def _open_tunnel(sock: socket.socket, origin: Origin, authorization: str | None, deadline: float) -> None:
    """Open a tunnel to the origin through an HTTP proxy (CONNECT)."""
    target = f"{origin.host}:{origin.port}"
    header_block = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if authorization is not None:
        header_block += f"Proxy-Authorization: {authorization}\r\n"
    sock.settimeout(_seconds_until(deadline))
    sock.sendall(f"{header_block}\r\n".encode("latin-1"))
    response = bytearray()
    while response.find(b"\r\n\r\n", max(len(response) - 4096 - 3, 0)) < 0:
        sock.settimeout(_seconds_until(deadline))
        data = sock.recv(4096)
        response += data
        if not data or len(response) > MAX_HEADER_BYTES:
            raise ProxyError("the proxy sent no complete response to CONNECT")
    if response.split(b" ", 2)[1:2] != [b"200"]:
        raise ProxyError("the proxy refused the connection")


@lru_cache(maxsize=8)
def _tls_context(verify: bool | str) -> ssl.SSLContext:
    """Return a cached context. Loading the certificate authorities takes tens of milliseconds."""
    if isinstance(verify, str):
        return ssl.create_default_context(cafile=verify)
    return ssl.create_default_context(cafile=certifi.where())
