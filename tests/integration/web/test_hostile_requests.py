"""Hostile methods, paths and headers at every door, and hostile content of an upstream."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.raw_server import RawServer, read_request
from tests.support.tools import ROOT

METHODS = ["TRACE", "CONNECT", "OPTIONS", "PROPFIND", "HEAD", "get", "X" * 30, "", "G\0T", "PUT", "PATCH", "DELETE"]
PATHS = [
    "/", "/v1/models", "/v1/chat/completions", "/ask", "/docs", "/docs/assets/..%2f..%2f..%2fetc/passwd",
    "/home/%2e%2e/app", "/home/..", "/../../etc/passwd", "//etc/passwd", "/%00", "/v1/%ff", "*", "/v1/files?x=%",
    "/home/a%00b", "/docs/assets/%00", "/home/" + "a" * 3000, "http://x/v1/models", "/v1/models/%2e%2e/x", "/\xe9",
    "/v1/models/" + "%f0" * 50, "v1/models",
]  # fmt: skip
HEADERS = [
    "Content-Length: -1", "Content-Length: 1, 1", "Transfer-Encoding: gzip", "Expect: x", "X\0: y", "X: \0", "X : y",
    ": y", "Host: y", "Range: bytes=0-", 'If-None-Match: "', "Accept: " + "a/b," * 300, "Accept: ;;;q=x",
    "Content-Type: \xff", "Content-Type: multipart/form-data", "Authorization: Bearer \xff", "X-Request-Id: <script>",
    "Cookie: \xff=1", "Upgrade: h2c", "Connection: close, x", "Script-Name: /x", "Accept-Language: \xff",
    "Origin: \xff", "If-Modified-Since: x", "X-Forwarded-For: \xff", "X-Forwarded-Host: <script>", "Forwarded: x",
    "Content-Encoding: zzz", "Remote-User: root", "Wsgi.Input: x", "Proxy: http://x", "X-HTTP-Method-Override: DELETE",
]  # fmt: skip
DOORS = [
    "GET /", "GET /v1/models", "GET /docs", "GET /home/home.js", "POST /v1/chat/completions", "POST /ask",
    "POST /v1/responses",
]  # fmt: skip
NO_HTTP = [b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GET / HTTP/9.9", b"PRI * HTTP/2.0", b"GET / HTTP/1.1\nHost: x", b"\0"]
TELLTALES = (b"gunicorn", b"werkzeug", b"flask", b"traceback", b"python", b"site-packages", str(ROOT).lower().encode())


@pytest.fixture(scope="module")
def server(upstream: MockUpstream) -> Iterator[LiveServer]:
    with LiveServer({"OPENAI_BASE_URL": upstream.base_url}) as live:
        yield live


def send(server: LiveServer, data: bytes) -> tuple[str, bytes]:
    """Return the head and the body of the response."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(data)
        received = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    return head.decode("latin-1"), body


def check(server: LiveServer, start: str, header: str = "X: y") -> None:
    """Send a request and check that the answer names no software and no path, and is no failure of this server."""
    check_bytes(server, f"{start} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}".encode("latin-1"))


def check_bytes(server: LiveServer, request: bytes) -> None:
    head, body = send(server, request + b"\r\n\r\n")
    sent = request[:200]
    status = int(head.split()[1])
    assert status < 500, (sent, head, body)
    assert not [word for word in TELLTALES if word in head.lower().encode()], (sent, head)
    assert "\r\nserver:" not in head.lower(), sent
    if status >= 400:
        assert not [word for word in TELLTALES if word in body.lower()], (sent, body)
        assert not body or json.loads(body).keys() & {"error"}, (sent, body)


@pytest.mark.parametrize("method", METHODS)
def test_hostile_methods_and_paths_reveal_nothing(server: LiveServer, method: str) -> None:
    for path in PATHS:
        check(server, f"{method} {path}")


@pytest.mark.parametrize("door", DOORS)
def test_hostile_headers_reveal_nothing(server: LiveServer, door: str) -> None:
    for header in HEADERS:
        check(server, door, header)


def test_what_is_not_http_reveals_nothing(server: LiveServer) -> None:
    for data in NO_HTTP:
        check_bytes(server, data)


def test_none_of_it_is_a_defect_in_the_log(server: LiveServer) -> None:
    check(server, "GET /healthz")
    assert "Traceback" not in server.log()


PAGES = {
    "/v1/files/x/content": ("200 OK", "text/html", b"<script>alert(document.domain)</script>"),
    "/v1/image.svg": ("200 OK", "image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"),
    "/v1/files/failing": ("500 Error", "text/html", b"<script>alert(document.domain)</script>"),
    "/v1/files/disguised": (
        "400 Error",
        "text/html",
        b'{"error": {"message": "<script>alert(1)</script>", "type": "x", "param": null, "code": null}}',
    ),
    "/v1/models/unknown": ("404 Error", "text/html", b"<script>alert(1)</script>"),
    "/v1/empty": ("204 No Content", "text/html", b""),
}


@pytest.fixture(scope="module")
def relaying() -> Iterator[LiveServer]:
    def relay_page(client: socket.socket) -> None:
        path = read_request(client).split()[1].decode()
        status, kind, body = PAGES.get(path, ("200 OK", "text/html", b"<script>alert(1)</script>"))
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nSet-Cookie: a=b\r\nConnection: close\r\n"
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    with RawServer(relay_page) as upstream, LiveServer({"OPENAI_BASE_URL": f"{upstream.url}/v1"}) as live:
        yield live


@pytest.mark.parametrize("path", PAGES)
def test_no_script_of_an_upstream_runs_in_this_origin(relaying: LiveServer, path: str) -> None:
    head, _ = send(relaying, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    lines = head.lower().split("\r\n")
    assert "x-content-type-options: nosniff" in lines
    assert "content-security-policy: sandbox" in lines
    assert not [line for line in lines if line.startswith("set-cookie")]
    if not head.split()[1].startswith("2"):
        assert "content-type: application/json" in lines


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/ask"])
def test_a_page_instead_of_an_answer_is_an_error(relaying: LiveServer, path: str) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "input": "x"}).encode()
    request = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    head, answer = send(relaying, request + body)
    assert int(head.split()[1]) >= 500
    assert "content-type: application/json" in head.lower()
    assert "content-security-policy: sandbox" in head.lower()
    assert b"<script>" not in answer


def test_the_server_fetches_no_address_that_a_request_names(server: LiveServer) -> None:
    with RawServer(read_request) as bait:
        parts = [
            {"type": "text", "text": bait.url},
            {"type": "image_url", "image_url": {"url": f"{bait.url}/image.png"}},
            {"type": "file", "file": {"file_data": f"{bait.url}/file.pdf"}},
        ]
        message = {"role": "user", "content": parts}
        named = {"prompt": bait.url, "input": bait.url, "base_url": bait.url, "user": bait.url}
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/ask"):
            body = json.dumps({"model": "mock-model", "messages": [message], **named}).encode()
            head = f"POST {path} HTTP/1.1\r\nHost: {bait.url[7:]}\r\nX-Forwarded-Host: {bait.url[7:]}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            assert send(server, head.encode() + body)[0]
        send(server, f"GET {bait.url}/v1/files HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert bait.connections == 0
