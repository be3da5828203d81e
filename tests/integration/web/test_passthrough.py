"""Passthrough of all other endpoints, with an upstream that sends exactly the bytes of the test."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.live_server import LiveServer
from tests.support.raw_server import RawServer, Script, answer_with, read_request
from tests.support.waiting import wait_until


@contextmanager
def proxy_for(script: Script, **settings: str) -> Iterator[LiveServer]:
    with RawServer(script) as upstream, LiveServer({"OPENAI_BASE_URL": f"{upstream.url}/v1", **settings}) as server:
        yield server


def send_request(
    server: LiveServer, method: str, path: str, body: bytes | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    response = connection.getresponse()
    result = response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    connection.close()
    return result


def respond_with(head: str, body: bytes = b"") -> Script:
    return answer_with(f"HTTP/1.1 {head}\r\n\r\n".encode() + body)


def wait_for_line(server: LiveServer, text: str) -> None:
    """Wait for a log line that contains `text`. It is written after the response, so the client may be faster."""
    wait_until(lambda: text in server.log(), server.log)


def test_body_logging_does_not_change_a_forwarded_body() -> None:
    seen: list[bytes] = []

    def script(client: socket.socket) -> None:
        seen.append(read_request(client).partition(b"\r\n\r\n")[2])
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")

    with proxy_for(script, LOG_REQUEST_BODIES="true") as server:
        assert send_request(server, "POST", "/v1/moderations", b'{"input": "x"}')[2] == b"{}"
    assert seen == [b'{"input": "x"}']


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_response_without_a_body_keeps_its_status(status: int) -> None:
    with proxy_for(respond_with(f"{status} Whatever\r\nX-Request-Id: up")) as server:
        code, headers, body = send_request(server, "DELETE", "/v1/files/f")
        assert (code, body, headers["x-request-id"]) == (status, b"", "up")
        wait_for_line(server, f"status={status}")


@pytest.mark.parametrize("status", ["205 Reset Content", "699 What"])
def test_a_status_that_has_no_body_and_an_invalid_one_are_a_502(status: str) -> None:
    with proxy_for(respond_with(f"{status}\r\nContent-Type: application/json", b"{}")) as server:
        code, _, body = send_request(server, "POST", "/v1/responses", b"{}")
        assert (code, json.loads(body)["error"]["code"]) == (502, "upstream_bad_reply")


def test_status_201_is_logged() -> None:
    with proxy_for(respond_with("201 Created\r\nContent-Length: 2", b"{}")) as server:
        assert send_request(server, "POST", "/v1/uploads", b"{}")[0] == 201
        wait_for_line(server, "status=201")


def test_a_head_response_has_the_content_length_of_the_body() -> None:
    with proxy_for(respond_with("200 OK\r\nContent-Length: 500\r\nContent-Type: audio/mpeg")) as server:
        status, headers, body = send_request(server, "HEAD", "/v1/files/f/content")
        assert (status, headers["content-length"], headers["content-type"], body) == (200, "500", "audio/mpeg", b"")


def test_a_body_without_a_content_type_is_not_html() -> None:
    with proxy_for(respond_with("200 OK\r\nContent-Length: 11", b"<b>hello</b"[:11])) as server:
        assert send_request(server, "GET", "/v1/files/f/content")[1]["content-type"] == "application/octet-stream"


def test_an_unsupported_content_encoding_is_forwarded_with_its_header() -> None:
    with proxy_for(respond_with("200 OK\r\nContent-Encoding: br\r\nContent-Length: 3", b"xyz")) as server:
        _, headers, body = send_request(server, "GET", "/v1/files/f/content")
        assert (headers["content-encoding"], body) == ("br", b"xyz")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files"])
def test_an_invalid_chunked_body_is_a_400(path: str) -> None:
    with (
        proxy_for(respond_with("200 OK\r\nContent-Length: 2", b"{}")) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as client,
    ):
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        client.sendall(head.encode() + b"zz\r\nxx\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 400 ")
        assert "Traceback" not in server.log()


def test_a_redirect_of_the_upstream_is_a_502() -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]}).encode()
    with proxy_for(respond_with("301 Moved\r\nLocation: http://elsewhere.test/\r\nContent-Length: 0")) as server:
        status, _, answer = send_request(server, "POST", "/v1/chat/completions", body)
        assert (status, json.loads(answer)["error"]["code"]) == (502, "upstream_bad_reply")


def test_an_idle_forwarded_stream_gets_keep_alive_comments() -> None:
    def script(client: socket.socket) -> None:
        read_request(client)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall(b"8\r\ndata: 1\n\r\n1\r\n\n\r\n")
        client.recv(1)

    with (
        proxy_for(script, SSE_KEEPALIVE_SECONDS="0.1") as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as client,
    ):
        client.sendall(b"POST /v1/moderations HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        received = b""
        while b": keep-alive" not in received:
            data = client.recv(65536)
            assert data
            received += data


def test_a_double_slash_is_a_404_and_no_redirect() -> None:
    with LiveServer() as server:
        status, headers, body = send_request(server, "POST", "/v1//chat/completions", b"{}")
        assert (status, headers["content-type"]) == (404, "application/json")
        assert json.loads(body)["error"]["code"] == "unknown_url"


def test_the_files_of_the_documentation_pages_are_served() -> None:
    with LiveServer() as server:
        for path in ("/docs", "/redoc", "/openapi.json", "/docs/assets/swagger-ui.css", "/docs/assets/start.js"):
            status, _, body = send_request(server, "GET", path)
            assert (status, bool(body)) == (200, True), path


REFUSAL = b'{"error":{"message":"m","type":"t","param":null,"code":"rate_limit_exceeded"}}'
COMPLETION = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    },
    indent=1,
).encode()


def streamed_events(status: bytes, answer: bytes, *, is_deferred: bool) -> tuple[int, list[bytes]]:
    """Return the status and the data of the events that a streamed call gets from an upstream that sends JSON.

    If the response is deferred, the upstream answers after the client has received a comment.
    """
    may_answer = threading.Event()

    def script(client: socket.socket) -> None:
        read_request(client)
        assert not is_deferred or may_answer.wait(20)
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(answer))
        client.sendall(head + answer)

    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}).encode()
    keep_alive = "0.05" if is_deferred else "3600"
    with proxy_for(script, SSE_KEEPALIVE_SECONDS=keep_alive) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert not is_deferred or response.readline().startswith(b":")
        may_answer.set()
        received = response.read()
        connection.close()
    return response.status, [line[6:] for line in received.split(b"\n") if line.startswith(b"data: ")]


def test_a_delayed_error_becomes_an_error_event_without_an_end_mark() -> None:
    code, events = streamed_events(b"429 Slow Down", REFUSAL, is_deferred=True)
    assert code == 200
    assert [json.loads(event) for event in events] == [json.loads(REFUSAL)]


@pytest.mark.parametrize("is_deferred", [False, True], ids=["at once", "deferred"])
def test_a_complete_answer_to_a_streamed_call_becomes_chunks(*, is_deferred: bool) -> None:
    code, events = streamed_events(b"200 OK", COMPLETION, is_deferred=is_deferred)
    assert (code, events[-1]) == (200, b"[DONE]")
    chunks = [json.loads(event) for event in events[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    deltas = [(chunk["choices"][0]["delta"], chunk["choices"][0]["finish_reason"]) for chunk in chunks]
    assert deltas == [({"role": "assistant", "content": "hi"}, None), ({}, "stop")]


OUTSIDE = [
    "models/../../admin/x",
    "models/%2e%2e/%2e%2e/admin",
    "files/..%2f..%2fadmin",
    "files/%252e%252e/x",
    "..%5cadmin",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_path_that_leaves_the_upstreams_api_is_a_404(path: str) -> None:
    with proxy_for(respond_with("200 OK\r\nContent-Length: 5", b"admin")) as server:
        assert send_request(server, "GET", f"/v1/{path}")[0] == 404


MALFORMED = {
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n": 431,
    b"GET /" + b"y" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n": 414,
    b"POST /v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n": 400,
    b"POST /v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n": 400,
    b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n": 400,
}


@pytest.mark.parametrize(("request_bytes", "status"), MALFORMED.items(), ids=["head", "line", "length", "both", "TLS"])
def test_invalid_http_gets_the_error_envelope(request_bytes: bytes, status: int) -> None:
    with LiveServer() as server, socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(request_bytes)
        response = http.client.HTTPResponse(client)
        response.begin()
        error = json.loads(response.read())["error"]
        assert (response.status, error["type"]) == (status, "invalid_request_error")
        assert response.headers["x-request-id"]


BROKEN_BEFORE_THE_FIRST_BYTE = {
    "cut": b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 10\r\n\r\n",
    "cut within a chunked body": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "invalid chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "cut event stream": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    "invalid status": b"HTTP/1.1 799 Odd\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("answer", BROKEN_BEFORE_THE_FIRST_BYTE.values(), ids=BROKEN_BEFORE_THE_FIRST_BYTE)
def test_a_response_that_fails_before_its_first_byte_is_a_502(answer: bytes) -> None:
    with proxy_for(answer_with(answer)) as server:
        status, headers, body = send_request(server, "GET", "/v1/files/f/content")
        assert (status, headers["content-type"]) == (502, "application/json")
        assert json.loads(body)["error"]["type"] == "upstream_error"


def test_an_empty_response_is_passed_on() -> None:
    with proxy_for(respond_with("200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 0")) as server:
        status, headers, body = send_request(server, "GET", "/v1/files/f/content")
        assert (status, headers["content-type"], body) == (200, "audio/mpeg", b"")


def test_a_range_that_cannot_be_satisfied_has_the_size_of_the_file() -> None:
    head = "416 Range Not Satisfiable\r\nContent-Range: bytes */500\r\nContent-Length: 0"
    with proxy_for(respond_with(head)) as server:
        status, headers, _ = send_request(server, "GET", "/v1/files/f/content")
        assert (status, headers["content-range"]) == (416, "bytes */500")


def exchange(server: LiveServer, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send the bytes of a request completely, and only then read the answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(request)
        response = http.client.HTTPResponse(client)
        response.begin()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def test_headers_of_downloads_and_of_anthropics_clients_reach_the_upstream() -> None:
    seen: list[str] = []

    def script(client: socket.socket) -> None:
        seen.append(read_request(client).decode().lower())
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    headers = (
        b"Host: x\r\nX-Api-Key: of-the-client\r\nAnthropic-Version: 2023-06-01\r\nAnthropic-Beta: b\r\n"
        b'Range: bytes=1-\r\nIf-Range: "tag"\r\n\r\n'
    )
    with proxy_for(script, OPENAI_API_KEY="sk-server") as server:
        assert exchange(server, b"GET /v1/files/f HTTP/1.1\r\n" + headers)[0] == 200
    with proxy_for(script) as server:
        assert exchange(server, b"GET /v1/files/f HTTP/1.1\r\n" + headers)[0] == 200
    with_key, without_key = seen
    for request in seen:
        for line in ("anthropic-version: 2023-06-01", "anthropic-beta: b", "range: bytes=1-", 'if-range: "tag"'):
            assert f"\r\n{line}\r\n" in request
        assert "x-api-key" not in request
    assert "authorization: bearer sk-server" in with_key
    assert "of-the-client" not in with_key
    assert "authorization: bearer of-the-client" in without_key


WEBSOCKET = (
    b"Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: eA==\r\n\r\n"
)


@pytest.mark.parametrize(
    "path", [b"/v1/moderations", b"/v1/realtime?model=m", b"/openai/realtime", b"/v1/chat/completions"]
)
@pytest.mark.parametrize("has_upstream", [True, False])
def test_a_websocket_is_a_426(path: bytes, has_upstream: bool) -> None:
    with RawServer(respond_with("200 OK\r\nContent-Length: 2", b"{}")) as upstream:
        with LiveServer({"OPENAI_BASE_URL": f"{upstream.url}/v1"} if has_upstream else {}) as server:
            status, headers, body = exchange(server, b"GET " + path + b" HTTP/1.1\r\n" + WEBSOCKET)
        assert (status, headers["content-type"]) == (426, "application/json")
        assert json.loads(body)["error"]["code"] == "websocket_not_supported"
        assert upstream.connections == 0


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("encoding", COMPRESSORS)
def test_a_compressed_chat_request_is_decoded_for_the_upstream(encoding: str) -> None:
    seen: list[bytes] = []

    def script(client: socket.socket) -> None:
        seen.append(read_request(client))
        client.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(COMPLETION)
        )
        client.sendall(COMPLETION)

    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Encoding: {}\r\n"
    compressed = COMPRESSORS[encoding](body)
    request = head.format(encoding).encode() + b"Content-Length: %d\r\n\r\n" % len(compressed) + compressed
    with proxy_for(script) as server:
        assert exchange(server, request)[0] == 200
        assert exchange(server, request.replace(compressed, b"x" * len(compressed)))[0] == 400
        unknown = exchange(server, request.replace(f"Content-Encoding: {encoding}".encode(), b"Content-Encoding: br"))
    upstream_head, _, upstream_body = seen[0].partition(b"\r\n\r\n")
    assert upstream_body == body
    assert b"content-encoding" not in upstream_head.lower()
    assert unknown[0] == 415
    assert "'br'" in json.loads(unknown[2])["error"]["message"]


def test_the_encoding_of_a_forwarded_body_is_kept() -> None:
    seen: list[bytes] = []

    def script(client: socket.socket) -> None:
        seen.append(read_request(client))
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    head = b"POST /v1/moderations HTTP/1.1\r\nHost: x\r\nContent-Encoding: zstd\r\nContent-Length: 4\r\n\r\n"
    with proxy_for(script) as server:
        assert exchange(server, head + b"\x28\xb5\x2f\xfd")[0] == 200
    assert b"\r\ncontent-encoding: zstd\r\n" in seen[0].lower()
    assert seen[0].endswith(b"\r\n\r\n\x28\xb5\x2f\xfd")


UPLOAD = b"x" * 5_000_000
CHUNKED = b"".join(b"10000\r\n%b\r\n" % (b"x" * 65536) for _ in range(80)) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        (b"/nowhere", b"key", 404),
        (b"/v1/files", b"wrong", 401),
        (b"/v1/chat/completions", b"wrong", 401),
        (b"/v1/chat/completions", b"key", 413),
    ],
)
@pytest.mark.parametrize("connection", [b"close", b"keep-alive"])
@pytest.mark.parametrize(
    ("framing", "body"),
    [(b"Content-Length: %d" % len(UPLOAD), UPLOAD), (b"Transfer-Encoding: chunked", CHUNKED)],
    ids=["length", "chunked"],
)
def test_a_client_that_writes_everything_before_it_reads_gets_the_error(
    key_server: LiveServer, path: bytes, key: bytes, status: int, connection: bytes, framing: bytes, body: bytes
) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: %b\r\nAuthorization: Bearer %b\r\n%b\r\n\r\n"
    code, _, answer = exchange(key_server, head % (path, connection, key, framing) + body)
    assert code == status
    assert json.loads(answer)["error"]["type"] == "invalid_request_error"


def test_an_unread_body_that_never_arrives_does_not_delay_the_end_of_the_answer(key_server: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", key_server.port), timeout=4) as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5000000\r\n\r\n")
        received = b""
        while data := client.recv(65536):
            received += data
    assert received.startswith(b"HTTP/1.1 404 ")


@pytest.fixture(scope="module")
def key_server() -> Iterator[LiveServer]:
    environment = {"API_KEYS": "key", "MAX_REQUEST_BYTES": "100000", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    with LiveServer(environment) as server:
        yield server


@pytest.mark.parametrize("path", ["/health", "/healthz", "/health/"])
def test_the_health_check_has_an_alias(key_server: LiveServer, path: str) -> None:
    status, _, body = send_request(key_server, "GET", path)
    assert (status, json.loads(body)) == (200, {"status": "ok"})
