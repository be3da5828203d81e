"""deploy/nginx.conf in a real nginx, in front of an upstream whose bytes the test sends."""

from __future__ import annotations

import json
import re
import runpy
import socket
from collections.abc import Iterator
from contextlib import closing
from queue import Queue
from threading import Thread

import pytest

from openai_compat.core.settings import Settings
from tests.support.nginx import DEPLOY, Nginx, free_port, nginx_in_front_of
from tests.support.tools import ROOT

TIMEOUT = 20.0
"""Seconds that bound a failing test. nginx itself waits an hour."""
EVENT_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
)


class Upstream:
    """Listener that passes its connections to the test."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self._accepted: Queue[socket.socket] = Queue()
        Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.settimeout(TIMEOUT)
            self._accepted.put(connection)

    def connection(self) -> socket.socket:
        """Return the next connection from nginx."""
        return self._accepted.get(timeout=TIMEOUT)

    def pending_connections(self) -> int:
        return self._accepted.qsize()

    def close(self) -> None:
        self.listener.close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with closing(Upstream()) as upstream:
        yield upstream


@pytest.fixture
def nginx(upstream: Upstream) -> Iterator[Nginx]:
    with nginx_in_front_of(upstream.url) as nginx:
        yield nginx


@pytest.fixture(scope="module")
def nginx_without_upstream() -> Iterator[Nginx]:
    with nginx_in_front_of(f"http://127.0.0.1:{free_port()}") as nginx:
        yield nginx


def send(nginx: Nginx, head: str, body: bytes = b"") -> socket.socket:
    client = socket.create_connection(nginx.address, timeout=TIMEOUT)
    client.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
    return client


def read_until(connection: socket.socket, end: bytes) -> bytes:
    read = b""
    while end not in read:
        block = connection.recv(65536)
        assert block, f"closed after {read!r}"
        read += block
    return read


def read_reply(client: socket.socket) -> tuple[int, bytes, bytes]:
    """Return the status, the header block and the body of a response with a Content-Length."""
    head, body = read_until(client, b"\r\n\r\n").split(b"\r\n\r\n", 1)
    length = re.search(rb"(?i)content-length: (\d+)", head)
    assert length, head
    while len(body) < int(length[1]):
        body += client.recv(65536)
    return int(head.split()[1]), head.lower(), body


def assert_is_error(client: socket.socket, status: int, type_: str, code: str | None) -> None:
    got_status, head, body = read_reply(client)
    assert got_status == status
    assert b"\r\ncontent-type: application/json\r\n" in head
    assert b"\r\nx-request-id: " in head
    error = json.loads(body)["error"]
    assert error.pop("message")
    assert error == {"type": type_, "param": None, "code": code}


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


STREAM = """POST /v1/chat/completions HTTP/1.1
Host: api.example
Accept-Encoding: gzip
Content-Type: application/json
Content-Length: 2"""


def test_each_event_arrives_before_the_next_is_sent_and_uncompressed(nginx: Nginx, upstream: Upstream) -> None:
    with send(nginx, STREAM, b"{}") as client, upstream.connection() as server:
        read_until(server, b"{}")
        server.sendall(EVENT_STREAM + chunk(b"data: one\n\n"))
        reply = read_until(client, b"data: one\n\n")
        assert reply.startswith(b"HTTP/1.1 200 ")
        assert b"content-encoding" not in reply.lower()
        server.sendall(chunk(b"data: tw"))  # a part of an event is forwarded too
        read_until(client, b"data: tw")
        server.sendall(chunk(b"o\n\n") + b"0\r\n\r\n")
        assert read_until(client, b"0\r\n\r\n").endswith(b"0\r\n\r\n")


def test_a_request_body_is_forwarded_before_it_is_complete(nginx: Nginx, upstream: Upstream) -> None:
    head = "POST /v1/files HTTP/1.1\nHost: api.example\nContent-Length: 1000000"
    with send(nginx, head, b"the first bytes") as client, upstream.connection() as server:
        read_until(server, b"the first bytes")
        client.sendall(b"x" * 10)
        read_until(server, b"x" * 10)


def test_a_json_body_is_forwarded_once_it_is_complete(nginx: Nginx, upstream: Upstream) -> None:
    with send(nginx, STREAM, b"{") as client, send(nginx, "GET /other HTTP/1.1\nHost: a"):
        with upstream.connection() as first:
            assert read_until(first, b"\r\n\r\n").startswith(b"GET /other ")
        client.sendall(b"}")
        with upstream.connection() as second:
            assert read_until(second, b"{}").startswith(b"POST /v1/chat/completions ")


def test_an_address_may_have_a_limited_number_of_requests(upstream: Upstream) -> None:
    replace = {"limit_conn openai_compat_address 500;": "limit_conn openai_compat_address 1;"}
    with nginx_in_front_of(upstream.url, replace) as nginx, send(nginx, STREAM, b"{}"), upstream.connection() as server:
        read_until(server, b"{}")
        with send(nginx, STREAM, b"{}") as rejected:
            assert_is_error(rejected, 429, "rate_limit_error", "rate_limit_exceeded")


def test_slow_heads_and_bodies_end_at_nginx(upstream: Upstream) -> None:
    replace = {
        "client_header_timeout 20s;": "client_header_timeout 100ms;",
        "client_body_timeout 30s;": "client_body_timeout 100ms;",
    }
    with (
        nginx_in_front_of(upstream.url, replace) as nginx,
        send(nginx, STREAM, b"{") as slow_body,
        socket.create_connection(nginx.address, TIMEOUT) as slow_head,
    ):
        slow_head.sendall(b"GET / HTTP/1.1\r\nHost: a")
        assert read_to_end(slow_body) == read_to_end(slow_head) == b""  # status 408 is in nginx's log only
    assert upstream.pending_connections() == 0


def read_to_end(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize("has_started", [False, True], ids=["before the first byte", "within the stream"])
def test_a_client_disconnect_closes_the_upstream_connection(
    nginx: Nginx, upstream: Upstream, *, has_started: bool
) -> None:
    with send(nginx, STREAM, b"{}") as client, upstream.connection() as server:
        read_until(server, b"{}")
        if has_started:
            server.sendall(EVENT_STREAM + chunk(b"data: one\n\n"))
            read_until(client, b"data: one\n\n")
        client.close()
        assert server.recv(1) == b""


def test_an_unreachable_upstream_is_a_502_in_openais_form(nginx_without_upstream: Nginx) -> None:
    with send(nginx_without_upstream, STREAM, b"{}") as client:
        assert_is_error(client, 502, "server_error", "bad_gateway")


def test_a_request_is_not_repeated_after_a_closed_connection(nginx: Nginx, upstream: Upstream) -> None:
    with send(nginx, STREAM, b"{}") as client:
        with upstream.connection() as server:
            read_until(server, b"{}")
        assert_is_error(client, 502, "server_error", "bad_gateway")
    assert upstream.pending_connections() == 0


def test_a_timeout_of_the_upstream_is_a_504(upstream: Upstream) -> None:
    with (
        nginx_in_front_of(upstream.url, {"proxy_read_timeout 3600s;": "proxy_read_timeout 200ms;"}) as nginx,
        send(nginx, STREAM, b"{}") as client,
    ):
        assert_is_error(client, 504, "server_error", "gateway_timeout")


MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("path", "limit", "is_buffered"),
    [
        ("/v1/chat/completions", 32 * MIB, True),
        ("/api/v1/chat/completions", 32 * MIB, True),
        ("/openai/deployments/m/embeddings?api-version=1", 32 * MIB, True),
        ("/ask", 32 * MIB, True),
        ("/v1/files", 512 * MIB, False),
        ("/v1/chat/completions/abc", 512 * MIB, False),
    ],
)
def test_a_body_larger_than_the_limit_is_a_413(
    nginx_without_upstream: Nginx, path: str, limit: int, *, is_buffered: bool
) -> None:
    head = f"POST {path} HTTP/1.1\nHost: api.example\nContent-Length: "
    with send(nginx_without_upstream, head + str(limit + 1)) as client:
        assert_is_error(client, 413, "invalid_request_error", "request_too_large")
    with send(nginx_without_upstream, head + str(limit), b" " * limit if is_buffered else b"") as client:
        assert read_reply(client)[0] == 502  # nginx forwarded it to a server that is not there


@pytest.mark.parametrize(
    ("request_head", "status", "type_", "code"),
    [
        ("GARBAGE", 400, "invalid_request_error", "bad_request"),
        ("GET / HTTP/1.1", 400, "invalid_request_error", "bad_request"),  # no Host
        ("TRACE / HTTP/1.1\nHost: a", 405, "invalid_request_error", "method_not_allowed"),
        ("GET /" + "x" * 20_000 + " HTTP/1.1\nHost: a", 414, "invalid_request_error", "uri_too_long"),
        ("GET / HTTP/1.1\nHost: a\nX: " + "x" * 20_000, 431, "invalid_request_error", "headers_too_large"),
        ("GET /.openai-compat/error HTTP/1.1\nHost: a", 404, "invalid_request_error", "unknown_url"),
    ],
    ids=["garbage", "no host", "trace", "long url", "long header", "internal path"],
)
def test_the_errors_of_nginx_have_openais_form(
    nginx_without_upstream: Nginx, request_head: str, status: int, type_: str, code: str
) -> None:
    with send(nginx_without_upstream, request_head) as client:
        assert_is_error(client, status, type_, code)


@pytest.mark.parametrize("status", [400, 404, 413, 429, 500, 502, 503])
def test_the_errors_of_the_server_pass_unchanged(nginx: Nginx, upstream: Upstream, status: int) -> None:
    body = b'{"error": {"message": "its own"}}'
    head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nx-should-retry: false\r\nContent-Length: %d\r\n\r\n"
    with send(nginx, STREAM, b"{}") as client, upstream.connection() as server:
        read_until(server, b"{}")
        server.sendall(head % (status, len(body)) + body)
        got_status, got_head, got_body = read_reply(client)
    assert (got_status, got_body) == (status, body)
    assert b"\r\nx-should-retry: false\r\n" in got_head + b"\r\n"


def test_the_server_gets_the_address_and_the_original_url_of_the_client(nginx: Nginx, upstream: Upstream) -> None:
    head = (
        "GET /v1/models/org%2Fmodel?a=1 HTTP/1.1\nHost: api.example:8443\nX-Request-Id: mine\nAuthorization: Bearer k"
    )
    with send(nginx, head) as client, upstream.connection() as server:
        request = read_until(server, b"\r\n\r\n").decode()
        assert request.startswith("GET /v1/models/org%2Fmodel?a=1 HTTP/1.1\r\n")  # nginx does not decode the id
        headers = dict(line.split(": ", 1) for line in request.lower().split("\r\n")[1:] if line)
        assert headers["x-request-id"] == "mine"
        assert headers["authorization"] == "bearer k"
        assert headers["host"] == headers["x-forwarded-host"] == "api.example:8443"
        assert headers["x-forwarded-for"] == headers["x-real-ip"] == "127.0.0.1"
        assert headers["x-forwarded-proto"] == "http"
        assert "connection" not in headers
        server.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        read_until(client, b"\r\n\r\n")
    line = nginx.wait_for_access('"request_id":"mine"')
    assert '"path":"/v1/models/org%2Fmodel",' in line


def test_a_request_without_an_id_gets_an_id(nginx: Nginx, upstream: Upstream) -> None:
    with send(nginx, "GET / HTTP/1.1\nHost: a"), upstream.connection() as server:
        assert re.search(rb"(?i)x-request-id: [0-9a-f]{32}\r\n", read_until(server, b"\r\n\r\n"))


def test_connections_to_the_server_are_reused(nginx: Nginx, upstream: Upstream) -> None:
    with send(nginx, "GET /1 HTTP/1.1\nHost: a") as client, upstream.connection() as server:
        for path in (b"/2", b"/3"):
            read_until(server, b"\r\n\r\n")
            server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            read_until(client, b"ok")
            client.sendall(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path)
        assert b"GET /3 " in read_until(server, b"\r\n\r\n")
        assert upstream.pending_connections() == 0


def test_the_limits_equal_the_defaults_of_the_server() -> None:
    site = (DEPLOY / "nginx-site.conf").read_text()
    settings = Settings()
    assert f"client_max_body_size {settings.max_request_bytes // MIB}m;" in site
    assert f"client_max_body_size {settings.max_upload_bytes // MIB}m;" in site
    assert f"proxy_read_timeout {settings.upstream_total_timeout:.0f}s;" in site
    assert f"client_header_timeout {settings.request_head_timeout:.0f}s;" in site
    assert f"client_body_timeout {settings.request_body_timeout:.0f}s;" in site
    assert f"server 127.0.0.1:{settings.port};" in site


def test_nginx_closes_an_idle_connection_before_the_server_does() -> None:
    """Otherwise a request could meet a connection that is being closed, which is a 502."""
    kept = re.search(r"^    keepalive_timeout (\d+)s;", (DEPLOY / "nginx-site.conf").read_text(), re.MULTILINE)
    assert kept
    assert runpy.run_path(str(ROOT / "gunicorn.conf.py"))["keepalive"] > int(kept[1])
