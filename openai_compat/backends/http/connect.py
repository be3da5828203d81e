"""Opening a connection to another server, directly or through an HTTP proxy, for as long as anyone waits for it."""

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

from .pool import MAX_HEADER_BYTES, Deadlines, Origin, shut_down

UNIX = "http+unix://"
SocketAddress = tuple[socket.AddressFamily, tuple[Any, ...]]


class Address(NamedTuple):
    """What a request needs of its URL; `authorization` is for the user whom it names, or None."""

    scheme: str
    host: str
    port: int
    host_header: str
    target: str
    authorization: str | None


@lru_cache(maxsize=512)
def parse_address(url: str) -> Address:
    if url.startswith(UNIX):
        return _parse_unix_address(url)
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:  # without it as the cause: it may repeat a password
        raise InvalidURL("the host or the port of an upstream's URL cannot be read") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidURL("an upstream's URL needs http:// or https:// and a host")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or any(character <= " " for character in target):
        raise InvalidURL("an upstream's URL must be percent-encoded")
    host_header = parts.netloc.rpartition("@")[2]
    authorization = basic_authorization(parts.username, parts.password)
    return Address(parts.scheme, parts.hostname, port, host_header, target, authorization)


def _parse_unix_address(url: str) -> Address:
    """`http+unix://%2Frun%2Fengine.sock/path`: the socket's path stands, percent-encoded, where the host would."""
    host, slash, path = url.removeprefix(UNIX).partition("/")
    return Address("http+unix", unquote(host), 0, "localhost", slash + path, None)


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
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or 80
    except ValueError:  # without it as the cause: it may repeat the password
        raise ProxyError("the proxy's address cannot be read") from None
    if parts.scheme != "http" or not parts.hostname:
        raise ProxyError("only HTTP proxies are supported (http://host:port)")
    return Proxy(parts.hostname, port, basic_authorization(parts.username, parts.password))


def basic_authorization(user: str | None, password: str | None) -> str | None:
    """The `Basic` value for what a URL names as its user and password, percent-escaped there."""
    if user is None:
        return None
    credentials = f"{unquote(user)}:{unquote(password or '')}"
    return f"Basic {base64.b64encode(credentials.encode()).decode()}"


def open_socket(origin: Origin, patience: Deadlines, verify: bool | str) -> socket.socket:
    """A connected socket, over TLS where the origin wants it. The limit holds for all addresses of a name together:
    each may take its share of what is left to be reached, and all that is left from then on.

    Raises:
        TimeoutError, OSError, ssl.SSLError, ProxyError; CallCancelledError or any OSError after a cancellation.
        ValueError: the host's name is not one.
    """
    if origin.scheme == "http+unix":
        return _open_unix_socket(origin.host)
    limit = patience.timeouts.connect
    deadline = time.monotonic() + limit if limit else float("inf")
    proxy = parse_proxy(origin.proxy) if origin.proxy else None
    addresses = _resolve(*(proxy[:2] if proxy else (origin.host, origin.port)))
    failure: OSError = OSError("the name has no address")
    for index, address in enumerate(addresses):
        patience.cancellation.raise_if_cancelled()
        dialing = _Connector(origin, proxy, patience.cancellation, deadline)
        try:
            return dialing.connected(address, verify, _share(deadline, len(addresses) - index))
        except (ssl.SSLError, ProxyError):
            raise
        except OSError as error:
            failure = error
    raise failure


def _open_unix_socket(path: str) -> socket.socket:
    """At once or never: a listener on this machine has a queue, or is not there."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _resolve(host: str, port: int) -> list[SocketAddress]:
    """The addresses of a name. One that is an address already is not looked up: that takes a thread under gevent."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            socket.inet_pton(family, host)
            return [(family, (host, port))]
    return [(family, peer) for family, _, _, _, peer in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _share(deadline: float, addresses: int) -> float:
    """Until when the first of so many addresses may try: a dead one must not take the time of all."""
    now = time.monotonic()
    return now + (deadline - now) / addresses


def _seconds_until(deadline: float) -> float | None:
    if deadline == float("inf"):
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time to connect is over")
    return left


class _Connector:
    """One attempt at one address. A cancellation ends it in whichever step it is."""

    def __init__(self, origin: Origin, proxy: Proxy | None, cancellation: CancellationToken, deadline: float) -> None:
        self._origin = origin
        self._proxy = proxy
        self._cancellation = cancellation
        self._deadline = deadline

    def connected(self, address: SocketAddress, verify: bool | str, connect_by: float) -> socket.socket:
        family, peer = address
        self._sock = socket.socket(family, socket.SOCK_STREAM)
        self._cancellation.on_cancel(self._abort)
        try:
            self._sock.settimeout(_seconds_until(connect_by))
            self._sock.connect(peer)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._origin.scheme == "https":
                self._secure(verify)
            self._cancellation.raise_if_cancelled()
        except BaseException:
            self._sock.close()
            raise
        finally:
            self._cancellation.remove_callback(self._abort)
        return self._sock

    def _secure(self, verify: bool | str) -> None:
        if self._proxy is not None:
            _open_tunnel(self._sock, self._origin, self._proxy.authorization, self._deadline)
        wrapped = _tls_context(verify).wrap_socket(
            self._sock, server_hostname=self._origin.host, do_handshake_on_connect=False
        )
        self._sock = wrapped
        self._cancellation.raise_if_cancelled()  # one that came meanwhile found the old socket, without its descriptor
        wrapped.settimeout(_seconds_until(self._deadline))
        wrapped.do_handshake()

    def _abort(self) -> None:
        """Wakes whoever is connecting. A socket that is not yet connecting can only be closed, and then never will."""
        try:
            shut_down(self._sock)
        except OSError:
            self._sock.close()


def _open_tunnel(sock: socket.socket, origin: Origin, authorization: str | None, deadline: float) -> None:
    """Asks an HTTP proxy for a way through to the origin."""
    peer = f"{origin.host}:{origin.port}"
    head = f"CONNECT {peer} HTTP/1.1\r\nHost: {peer}\r\n"
    if authorization is not None:
        head += f"Proxy-Authorization: {authorization}\r\n"
    sock.settimeout(_seconds_until(deadline))
    sock.sendall(f"{head}\r\n".encode("latin-1"))
    answer = b""
    while b"\r\n\r\n" not in answer:
        sock.settimeout(_seconds_until(deadline))
        data = sock.recv(4096)
        answer += data
        if not data or len(answer) > MAX_HEADER_BYTES:
            raise ProxyError("the proxy gave no answer")
    if answer.split(b" ", 2)[1:2] != [b"200"]:
        raise ProxyError("the proxy refused the connection")


@lru_cache(maxsize=8)
def _tls_context(verify: bool | str) -> ssl.SSLContext:
    """Made once: reading the authorities takes tens of milliseconds."""
    if isinstance(verify, str):
        return ssl.create_default_context(cafile=verify)
    return ssl.create_default_context(cafile=certifi.where())
