"""Requests as they are sent, and requests that are rejected instead."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from requests.exceptions import InvalidHeader, InvalidURL

from openai_compat.backends.http.connection import Deadlines
from openai_compat.backends.http.transport import LlhttpAdapter, encode_chunked
from openai_compat.core.timeouts import Timeouts
from tests.support.raw_server import RawServer, wait_for_close

from .helpers import record_into, send


def test_the_request_line_the_headers_and_the_body(adapter: LlhttpAdapter) -> None:
    requests: list[bytes] = []
    with RawServer(record_into(requests)) as server:
        send(adapter, f"{server.url}/v1/x?y=%20z", "POST", headers={"X-Name": "ü", "Content-Length": "2"}, body=b"hi")
        host = f"127.0.0.1:{server.port}"
    assert requests == [
        f"POST /v1/x?y=%20z HTTP/1.1\r\nHost: {host}\r\nX-Name: ü\r\nContent-Length: 2\r\n\r\nhi".encode("latin-1")
    ]


@pytest.mark.parametrize("name", ["host", "Host"])
def test_a_host_header_replaces_the_url_s_host(adapter: LlhttpAdapter, name: str) -> None:
    requests: list[bytes] = []
    with RawServer(record_into(requests)) as server:
        send(adapter, server.url, headers={name: "other.test"})
    assert requests[0].lower().count(b"\r\nhost: ") == 1
    assert b"Host: other.test\r\n" in requests[0]


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "日本"])
@pytest.mark.parametrize("name", ["X-Name", "host"])
def test_a_header_with_a_line_break_or_outside_latin_1_is_rejected(
    adapter: LlhttpAdapter, name: str, value: str
) -> None:
    with pytest.raises(InvalidHeader):
        send(adapter, "http://127.0.0.1:9/", headers={name: value})


@pytest.mark.parametrize(
    "url", ["ftp://x/", "http:///x", "http://h:port/", "http://[h/", "http://h/a b", "http://h/\r\nX: 1"]
)
def test_an_invalid_url_is_rejected(adapter: LlhttpAdapter, url: str) -> None:
    with pytest.raises(InvalidURL):
        send(adapter, url)


def test_a_large_and_a_chunked_body_arrive_complete(adapter: LlhttpAdapter) -> None:
    requests: list[bytes] = []
    large = b"x" * 3_000_000
    chunked = encode_chunked(iter([b"ab", b"c"]))
    with RawServer(record_into(requests)) as server:
        send(adapter, server.url, "POST", headers={"Content-Length": str(len(large))}, body=large)
        send(adapter, server.url, "POST", headers={"Transfer-Encoding": "chunked"}, body=chunked)
    bodies = [request.partition(b"\r\n\r\n")[2] for request in requests]
    assert bodies == [large, b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"]


def test_an_empty_block_does_not_end_a_body(adapter: LlhttpAdapter) -> None:
    requests: list[bytes] = []
    deadlines = Deadlines(Timeouts(first_byte=5))
    with RawServer(record_into(requests)) as server:
        body = iter([b"a", b"", b"b"])
        send(adapter, server.url, "POST", headers={"Content-Length": "2"}, body=body, timeout=deadlines)
    assert requests[0].endswith(b"\r\n\r\nab")


@pytest.mark.parametrize("fault", [ConnectionResetError("by the client"), TimeoutError("the client's")], ids=repr)
def test_an_error_of_the_body_s_iterator_is_raised_unchanged(adapter: LlhttpAdapter, fault: Exception) -> None:
    def upload() -> Iterator[bytes]:
        yield b"a"
        raise fault

    with RawServer(wait_for_close) as server, pytest.raises(type(fault)) as caught:
        send(adapter, server.url, "POST", headers={"Content-Length": "9"}, body=upload())
    assert caught.value is fault


def test_a_response_that_arrives_before_the_body_is_sent_is_returned(adapter: LlhttpAdapter) -> None:
    def refuses(client: socket.socket) -> None:
        client.recv(1000)
        client.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        wait_for_close(client)

    with RawServer(refuses) as server:
        body = b"x" * 20_000_000
        response = send(adapter, server.url, "POST", headers={"Content-Length": str(len(body))}, body=body)
        assert response.status_code == 413
