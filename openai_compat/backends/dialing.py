"""Opening a connection to another server, directly or through an HTTP proxy, for as long as anyone waits for it."""

from __future__ import annotations

import base64
import socket
import ssl
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import certifi
from requests.exceptions import ProxyError

from .connections import MOST_HEADER_BYTES, Origin, Patience, bounded

Address = tuple[socket.AddressFamily, tuple[str, int]]


class Proxy(NamedTuple):
    """An HTTP proxy; `authorization` is the value of `Proxy-Authorization`, or None."""

    host: str
    port: int
    authorization: str | None


@lru_cache(maxsize=64)
def parse_proxy(url: str) -> Proxy:
    """A proxy as `HTTP_PROXY` and its like name it; without a scheme it is an HTTP proxy.

    Raises:
        ProxyError: it is of another kind, and nothing is sent to it.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise ProxyError("only HTTP proxies are supported (http://host:port)")
    return Proxy(parts.hostname, parts.port or 80, basic_authorization(parts.username, parts.password))


def basic_authorization(user: str | None, password: str | None) -> str | None:
    """The `Basic` value for what a URL names as its user and password, percent-escaped there."""
    if user is None:
        return None
    credentials = f"{unquote(user)}:{unquote(password or '')}"
    return f"Basic {base64.b64encode(credentials.encode()).decode()}"


def open_socket(origin: Origin, patience: Patience, verify: bool | str) -> socket.socket:
    """A connected socket, over TLS where the origin wants it. The limit holds for all addresses of a name together.

    Raises:
        TimeoutError, OSError, ssl.SSLError, ProxyError; anything, once the call has been cancelled.
    """
    limit = patience.timeouts.connect
    deadline = time.monotonic() + limit if limit else float("inf")
    proxy = parse_proxy(origin.proxy) if origin.proxy else None
    host, port = (proxy.host, proxy.port) if proxy else (origin.host, origin.port)
    failure: OSError = OSError("the name has no address")
    for address in _addresses(host, port):
        try:
            return _Dialing(origin, proxy, patience, deadline).connected(address, verify)
        except (TimeoutError, ssl.SSLError, ProxyError):
            raise
        except OSError as error:
            failure = error
    raise failure


def _addresses(host: str, port: int) -> Iterator[Address]:
    """The addresses of a name. One that is an address already is not looked up: that takes a thread under gevent."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        yield family, (host, port)
        return
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError("the host's name is not one") from error
    for family, _, _, _, address in found:
        yield family, address[:2]  # type: ignore[misc]  # an address of either family begins with host and port


class _Dialing:
    """One attempt at one address. A cancellation ends it in whichever step it is."""

    def __init__(self, origin: Origin, proxy: Proxy | None, patience: Patience, deadline: float) -> None:
        self._origin = origin
        self._proxy = proxy
        self._cancellation = patience.cancellation
        self._deadline = deadline
        self._sock: socket.socket | None = None

    def connected(self, address: Address, verify: bool | str) -> socket.socket:
        family, peer = address
        self._sock = socket.socket(family, socket.SOCK_STREAM)
        self._cancellation.on_cancel(self._abort)
        try:
            self._sock.settimeout(bounded(0, self._deadline))
            self._sock.connect(peer)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._origin.scheme == "https":
                self._secure(verify)
            self._cancellation.raise_if_cancelled()
        except BaseException:
            self._sock.close()
            raise
        finally:
            self._cancellation.forget(self._abort)
        return self._sock

    def _secure(self, verify: bool | str) -> None:
        if self._proxy is not None and self._sock is not None:
            _open_tunnel(self._sock, self._origin, self._proxy.authorization)
        context = _tls_context(verify)
        wrapped = context.wrap_socket(self._sock, server_hostname=self._origin.host, do_handshake_on_connect=False)  # type: ignore[arg-type]
        self._sock = wrapped
        wrapped.settimeout(bounded(0, self._deadline))
        wrapped.do_handshake()

    def _abort(self) -> None:
        if self._sock is not None:
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                self._sock.close()


def _open_tunnel(sock: socket.socket, origin: Origin, authorization: str | None) -> None:
    """Asks an HTTP proxy for a way through to the origin."""
    peer = f"{origin.host}:{origin.port}"
    head = f"CONNECT {peer} HTTP/1.1\r\nHost: {peer}\r\n"
    if authorization is not None:
        head += f"Proxy-Authorization: {authorization}\r\n"
    sock.sendall(f"{head}\r\n".encode("latin-1"))
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = sock.recv(4096)
        answer += data
        if not data or len(answer) > MOST_HEADER_BYTES:
            raise ProxyError("the proxy gave no answer")
    if answer.split(b" ", 2)[1:2] != [b"200"]:
        raise ProxyError("the proxy refused the connection")


@lru_cache(maxsize=8)
def _tls_context(verify: bool | str) -> ssl.SSLContext:
    """Made once: reading the authorities takes tens of milliseconds."""
    if isinstance(verify, str):
        return ssl.create_default_context(cafile=verify)
    return ssl.create_default_context(cafile=certifi.where())
