"""Framing, headers and compression of responses on real sockets, and invalid responses."""

from __future__ import annotations

import gzip
import socket
import time
import zlib
from collections.abc import Callable
from types import SimpleNamespace

import httptools
import pytest
from requests.exceptions import ChunkedEncodingError, ConnectionError

from openai_compat.backends.http import response_body
from openai_compat.backends.http.connection import Connection, Origin
from openai_compat.backends.http.decompression import MAX_DECODED_BYTES
from openai_compat.backends.http.response_body import MAX_SMALL_READS, SMALL_READ_BYTES
from openai_compat.backends.http.transport import LlhttpAdapter, NotHTTPError
from tests.support.raw_server import RawServer, Script, answer_bytewise, answer_with, read_request

from .helpers import CHUNKED, OK, read, send


@pytest.mark.parametrize(
    "response",
    [
        OK,
        CHUNKED,
        CHUNKED.replace(b"chunked", b"Chunked"),
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + CHUNKED,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + gzip.compress(b"hello"),
    ],
    ids=["length", "chunked", "in upper case", "until close", "HTTP/1.0", "early hints", "interim", "gzip"],
)
@pytest.mark.parametrize("script", [answer_with, answer_bytewise], ids=["at once", "byte by byte"])
def test_every_framing_yields_the_complete_body(
    adapter: LlhttpAdapter, response: bytes, script: Callable[[bytes], Script]
) -> None:
    with RawServer(script(response)) as server:
        received = send(adapter, f"{server.url}/path?a=b")
        assert (received.status_code, read(received)) == (200, b"hello")


TEXT = b"hello, hello, " * 400


@pytest.mark.parametrize(
    "compressed",
    [gzip.compress(TEXT), zlib.compress(TEXT), gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:])],
    ids=["gzip", "deflate", "two members"],
)
@pytest.mark.parametrize("script", [answer_with, answer_bytewise], ids=["at once", "byte by byte"])
def test_a_compressed_body_is_decoded_and_its_headers_are_removed(
    adapter: LlhttpAdapter, compressed: bytes, script: Callable[[bytes], Script]
) -> None:
    header_block = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nETag: x\r\nContent-Length: %d\r\n\r\n"
    with RawServer(script(header_block % len(compressed) + compressed)) as server:
        response = send(adapter, server.url)
        assert read(response) == TEXT
        assert response.headers == {}


def test_a_truncated_compressed_body_is_an_error(adapter: LlhttpAdapter) -> None:
    compressed = gzip.compress(TEXT)[:-12]
    header_block = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(compressed)
    with RawServer(answer_with(header_block + compressed)) as server, pytest.raises(ChunkedEncodingError):
        read(send(adapter, server.url))


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_response_without_a_body_keeps_its_headers(adapter: LlhttpAdapter, method: str) -> None:
    status = b"200 OK" if method == "HEAD" else b"304 Not Modified"
    header_block = b"HTTP/1.1 %b\r\nContent-Encoding: gzip\r\nETag: x\r\nContent-Length: 500\r\n\r\n" % status
    with RawServer(answer_with(header_block)) as server:
        response = send(adapter, server.url, method)
        assert read(response) == b""
        assert response.headers == {"content-encoding": "gzip", "etag": "x", "content-length": "500"}


def test_a_head_request_does_not_wait_for_a_body(adapter: LlhttpAdapter) -> None:
    with RawServer(answer_with(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")) as server:
        assert read(send(adapter, server.url, "HEAD")) == b""


def test_repeated_headers_are_joined(adapter: LlhttpAdapter) -> None:
    with RawServer(answer_with(CHUNKED)) as server:
        assert send(adapter, server.url).headers["x-a"] == "1, 2"


def test_a_trailer_does_not_change_the_headers(adapter: LlhttpAdapter) -> None:
    with RawServer(answer_with(CHUNKED[:-2] + b"X-A: 3\r\n\r\n")) as server:
        response = send(adapter, server.url)
        assert read(response) == b"hello"
        assert response.headers["x-a"] == "1, 2"


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nhel\r\n5\r\nlo",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\nnonsense",
    ],
    ids=["short", "no last chunk", "a cut chunk", "broken chunk"],
)
def test_a_truncated_response_is_an_error(adapter: LlhttpAdapter, response: bytes) -> None:
    with RawServer(answer_with(response)) as server:
        received = send(adapter, server.url)
        with pytest.raises(ChunkedEncodingError):
            read(received)


@pytest.mark.parametrize(
    ("response", "error"),
    [(b"", ConnectionError), (b"HTTP/1.1 200", ConnectionError), (b"220 smtp.example.com ESMTP\r\n", NotHTTPError)],
    ids=["none", "half", "not HTTP"],
)
def test_bytes_that_are_no_http_response_are_an_error(
    adapter: LlhttpAdapter, response: bytes, error: type[Exception]
) -> None:
    with RawServer(answer_with(response)) as server, pytest.raises(error):
        send(adapter, server.url)


def test_bytes_after_a_complete_response_are_ignored_and_close_the_connection(adapter: LlhttpAdapter) -> None:
    second = b"HTTP/1.1 418 Teapot\r\nContent-Length: 5\r\n\r\nghost"
    for rest in (second, second[:30], b"\x00\x01"):
        with RawServer(answer_with(OK + rest), answer_with(OK)) as server:
            response = send(adapter, server.url)
            assert (response.status_code, read(response)) == (200, b"hello")
            assert read(send(adapter, server.url)) == b"hello"
            assert server.connections == 2


class Endless:
    """A script that answers with `first` and then `piece` without end. `sent` counts the bytes of the pieces."""

    def __init__(self, first: bytes, piece: bytes) -> None:
        self._first = first
        self._piece = piece
        self.sent = 0

    def __call__(self, client: socket.socket) -> None:
        read_request(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that `sent` is about what the client reads
        client.sendall(self._first)
        while self.sent < 200_000_000:
            client.sendall(self._piece)
            self.sent += len(self._piece)


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Padding: x\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\nX-Padding: ", b"x" * 10_000),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 100),
    ],
    ids=["headers", "one header", "interim responses"],
)
def test_an_endless_head_is_an_error(adapter: LlhttpAdapter, first: bytes, piece: bytes) -> None:
    script = Endless(first, piece)
    with RawServer(script) as server, pytest.raises(NotHTTPError):
        send(adapter, server.url)
    assert script.sent < 10_000_000


@pytest.mark.parametrize("piece", [b"X: aaaa\r\n" * 1000, b"a" * 10_000], ids=["trailers", "one trailer"])
def test_endless_trailers_are_an_error(adapter: LlhttpAdapter, piece: bytes) -> None:
    script = Endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: ", piece)
    with RawServer(script) as server, pytest.raises(ChunkedEncodingError):
        read(send(adapter, server.url))
    assert script.sent < 10_000_000


def test_a_body_in_single_bytes_is_read_in_few_steps(adapter: LlhttpAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `MAX_SMALL_READS` small reads, each further one comes after a pause in which more bytes arrive."""
    small_reads = pauses = 0
    receive, sleep = Connection.receive, time.sleep

    def receive_and_count(connection: Connection) -> bytes:
        nonlocal small_reads
        data = receive(connection)
        small_reads += len(data) < SMALL_READ_BYTES
        return data

    def pause(seconds: float) -> None:
        nonlocal pauses
        pauses += 1
        sleep(seconds)

    def script(client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        read_request(client)
        client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(20_000):
            client.sendall(b"1\r\na\r\n")
        client.sendall(b"0\r\n\r\n")

    monkeypatch.setattr(Connection, "receive", receive_and_count)
    monkeypatch.setattr(response_body, "time", SimpleNamespace(sleep=pause))
    with RawServer(script) as server:
        assert read(send(adapter, server.url)) == b"a" * 20_000
    assert small_reads <= MAX_SMALL_READS + pauses + 2


def padded_head(size: int) -> bytes:
    """Return a head of `size` bytes for a body of 100,000 bytes."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nX-Padding: %b\r\n\r\n"
    return head % (b"x" * (size - len(head) + 2))


@pytest.mark.parametrize("first_bytes", [1, 200, 65_536])
def test_a_head_may_have_64_kib_and_the_body_behind_it_does_not_count(adapter: LlhttpAdapter, first_bytes: int) -> None:
    def script(client: socket.socket) -> None:
        read_request(client)
        answer = padded_head(65_536) + bytes(100_000)
        client.sendall(answer[:first_bytes])
        time.sleep(0.05)
        client.sendall(answer[first_bytes:])

    with RawServer(script) as server:
        assert len(read(send(adapter, server.url))) == 100_000
    with RawServer(answer_with(padded_head(65_537))) as server, pytest.raises(NotHTTPError):
        send(adapter, server.url)


def test_a_head_that_arrives_byte_by_byte_is_parsed_line_by_line(adapter: LlhttpAdapter) -> None:
    parsed: list[int] = []

    class Parser:
        def __init__(self, connection: Connection) -> None:
            self._parser = httptools.HttpResponseParser(connection)

        def __getattr__(self, name: str) -> object:
            return getattr(self._parser, name)

        def feed_data(self, data: bytes) -> None:
            parsed.append(len(data))
            self._parser.feed_data(data)

    left, right = socket.socketpair()
    with left, right:
        connection = Connection(left, Origin("http", "upstream.test", 80, None))
        connection._parser = Parser(connection)  # type: ignore[assignment]
        for position in range(2000):
            right.send(padded_head(2000)[position : position + 1])
            connection.receive()
    assert connection.headers_complete
    assert sum(parsed) == 2000, "a byte was parsed more than once"
    assert sum(size > 0 for size in parsed) <= 6, "the parser got an unfinished line"


def test_a_compressed_body_is_decoded_in_blocks_of_limited_size(adapter: LlhttpAdapter) -> None:
    compressed = gzip.compress(bytes(50_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(compressed)
    with RawServer(answer_with(head + compressed)) as server:
        raw = send(adapter, server.url).raw
        sizes = [len(block) for block in iter(raw.read1, b"")]
    assert sum(sizes) == 50_000_000
    assert max(sizes) <= MAX_DECODED_BYTES


def test_an_unrequested_protocol_switch_is_an_error(adapter: LlhttpAdapter) -> None:
    upgrade = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    with RawServer(answer_with(upgrade)) as server, pytest.raises(NotHTTPError):
        send(adapter, server.url)
