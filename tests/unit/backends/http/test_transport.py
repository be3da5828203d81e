"""The transport adapter on real sockets: framing, kept connections, time limits, cancellation, TLS-less proxies."""

from __future__ import annotations

import gzip
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from requests import PreparedRequest, Response
from requests.exceptions import (
    ChunkedEncodingError,
    ConnectionError,
    ConnectTimeout,
    InvalidHeader,
    InvalidURL,
    ProxyError,
    ReadTimeout,
    SSLError,
)

from openai_compat.backends.http.pool import Connection, ConnectionPool, Deadlines, Origin
from openai_compat.backends.http.transport import LlhttpAdapter, in_chunks
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import CallCancelledError
from openai_compat.core.settings import Timeouts
from tests.support.raw_server import RawServer, Script, answer_bytewise, answer_with, read_request, wait_for_close
from tests.support.tools import require_tool

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\nx-a: 2\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


@pytest.fixture
def adapter() -> Iterator[LlhttpAdapter]:
    made = LlhttpAdapter()
    yield made
    made.close()


def get(adapter: LlhttpAdapter, url: str, method: str = "GET", **options: object) -> Response:
    request = PreparedRequest()
    request.method, request.url, request.body = method, url, options.pop("body", None)  # type: ignore[assignment]
    request.headers = options.pop("headers", {})  # type: ignore[assignment]
    return adapter.send(request, **options)  # type: ignore[arg-type]


def read(response: Response) -> bytes:
    blocks = []
    while block := response.raw.read1():
        blocks.append(block)
    return b"".join(blocks)


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        CHUNKED,
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + CHUNKED,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + gzip.compress(b"hello"),
    ],
    ids=["length", "chunked", "until close", "HTTP/1.0", "early hints", "interim", "gzip"],
)
@pytest.mark.parametrize("script", [answer_with, answer_bytewise], ids=["at once", "byte by byte"])
def test_every_framing_gives_the_whole_body(adapter: LlhttpAdapter, answer: bytes, script: object) -> None:
    with RawServer(script(answer)) as server:  # type: ignore[operator]
        response = get(adapter, f"{server.url}/path?a=b")
        assert (response.status_code, read(response)) == (200, b"hello")


WORDS = b"hello, hello, " * 400


@pytest.mark.parametrize(
    "packed",
    [gzip.compress(WORDS), zlib.compress(WORDS), gzip.compress(WORDS[:100]) + gzip.compress(WORDS[100:])],
    ids=["gzip", "deflate", "two members"],
)
@pytest.mark.parametrize("script", [answer_with, answer_bytewise], ids=["at once", "byte by byte"])
def test_a_compressed_answer_is_undone_and_nothing_tells_of_it(
    adapter: LlhttpAdapter, packed: bytes, script: Callable[[bytes], Script]
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nETag: x\r\nContent-Length: %d\r\n\r\n" % len(packed)
    with RawServer(script(head + packed)) as server:
        response = get(adapter, server.url)
        assert read(response) == WORDS
        assert response.headers == {}


def test_a_compressed_answer_without_its_end_is_an_error(adapter: LlhttpAdapter) -> None:
    packed = gzip.compress(WORDS)[:-12]
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    with RawServer(answer_with(head + packed)) as server, pytest.raises(ChunkedEncodingError):
        read(get(adapter, server.url))


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_an_answer_without_a_body_keeps_what_it_says_of_one(adapter: LlhttpAdapter, method: str) -> None:
    status = b"200 OK" if method == "HEAD" else b"304 Not Modified"
    head = b"HTTP/1.1 %b\r\nContent-Encoding: gzip\r\nETag: x\r\nContent-Length: 500\r\n\r\n" % status
    with RawServer(answer_with(head)) as server:
        response = get(adapter, server.url, method)
        assert read(response) == b""
        assert response.headers == {"content-encoding": "gzip", "etag": "x", "content-length": "500"}


def test_headers_that_occur_twice_are_joined(adapter: LlhttpAdapter) -> None:
    with RawServer(answer_with(CHUNKED)) as server:
        assert get(adapter, server.url).headers["x-a"] == "1, 2"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\nnonsense",
    ],
    ids=["short", "no last chunk", "broken chunk"],
)
def test_an_answer_that_breaks_off_is_an_error(adapter: LlhttpAdapter, answer: bytes) -> None:
    with RawServer(answer_with(answer)) as server:
        response = get(adapter, server.url)
        with pytest.raises(ChunkedEncodingError):
            read(response)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200", b"220 smtp.example.com ESMTP\r\n"], ids=["none", "half", "not HTTP"]
)
def test_no_answer_is_an_error(adapter: LlhttpAdapter, answer: bytes) -> None:
    with RawServer(answer_with(answer)) as server, pytest.raises(ConnectionError):
        get(adapter, server.url)


def test_two_answers_at_once_are_the_first_and_no_connection(adapter: LlhttpAdapter) -> None:
    ghost = b"HTTP/1.1 418 Teapot\r\nContent-Length: 5\r\n\r\nghost"
    for rest in (ghost, ghost[:30], b"\x00\x01"):
        with RawServer(answer_with(OK + rest), answer_with(OK)) as server:
            response = get(adapter, server.url)
            assert (response.status_code, read(response)) == (200, b"hello")
            assert read(get(adapter, server.url)) == b"hello"
            assert server.connections == 2


def test_headers_without_end_are_not_read_forever(adapter: LlhttpAdapter) -> None:
    sent = 0

    def endless(client: socket.socket) -> None:
        nonlocal sent
        read_request(client)
        client.sendall(b"HTTP/1.1 200 OK\r\n")
        while sent < 50_000_000:
            client.sendall(b"X-Padding: x\r\n" * 1000)
            sent += 14_000

    with RawServer(endless) as server, pytest.raises(ConnectionError):
        get(adapter, server.url)
    assert sent < 20_000_000


def test_a_trailer_is_no_header(adapter: LlhttpAdapter) -> None:
    with RawServer(answer_with(CHUNKED[:-2] + b"X-A: 3\r\n\r\n")) as server:
        response = get(adapter, server.url)
        assert read(response) == b"hello"
        assert response.headers["x-a"] == "1, 2"


def test_a_change_of_protocol_is_no_answer(adapter: LlhttpAdapter) -> None:
    upgrade = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    with RawServer(answer_with(upgrade)) as server, pytest.raises(ConnectionError):
        get(adapter, server.url)


def test_nobody_listens(adapter: LlhttpAdapter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionError):
        get(adapter, f"http://127.0.0.1:{port}/")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate for localhost that nobody has signed but itself."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run([require_tool("openssl"), *command, *names], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def over_tls(certificate: Path, script: Script) -> Script:
    def serve(client: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        with suppress(ssl.SSLError), context.wrap_socket(client, server_side=True) as wrapped:
            script(wrapped)

    return serve


def test_tls_is_spoken_with_whom_the_configured_authority_vouches_for(
    adapter: LlhttpAdapter, certificate: Path
) -> None:
    with RawServer(over_tls(certificate, answer_with(OK, CHUNKED))) as server:
        for _ in range(2):
            assert read(get(adapter, f"https://localhost:{server.port}/", verify=str(certificate))) == b"hello"
        assert server.connections == 1


def test_a_certificate_that_nobody_vouches_for_is_refused(adapter: LlhttpAdapter, certificate: Path) -> None:
    with RawServer(over_tls(certificate, answer_with(OK))) as server:
        with pytest.raises(SSLError):
            get(adapter, f"https://localhost:{server.port}/")
        with pytest.raises(SSLError):
            get(adapter, f"https://127.0.0.1:{server.port}/", verify=str(certificate))


def test_a_server_without_tls_is_no_trusted_one(adapter: LlhttpAdapter) -> None:
    def plain(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        wait_for_close(client)

    with RawServer(plain) as server, pytest.raises(SSLError):
        get(adapter, server.url.replace("http:", "https:"))


def test_a_connection_is_used_again_after_a_whole_answer(adapter: LlhttpAdapter) -> None:
    with RawServer(answer_with(OK, CHUNKED, OK)) as server:
        assert [read(get(adapter, server.url)) for _ in range(3)] == [b"hello"] * 3
        assert server.connections == 1


def test_a_connection_is_not_used_again_after_a_half_read_answer(adapter: LlhttpAdapter) -> None:
    with RawServer(answer_with(OK, OK)) as server:
        get(adapter, server.url).raw.close()
        assert read(get(adapter, server.url)) == b"hello"
        assert server.connections == 2


def test_a_connection_that_the_peer_closed_meanwhile_is_replaced_unnoticed(adapter: LlhttpAdapter) -> None:
    with RawServer(answer_with(OK)) as server:
        for _ in range(5):
            assert read(get(adapter, server.url, "POST", headers={"Content-Length": "1"}, body=b"x")) == b"hello"


def test_a_request_that_reached_a_dying_connection_is_sent_once_more(adapter: LlhttpAdapter) -> None:
    def dies_on_the_second(client: socket.socket) -> None:
        read_request(client)
        client.sendall(OK)
        read_request(client)

    with RawServer(dies_on_the_second, answer_with(OK)) as server:
        assert read(get(adapter, server.url)) == b"hello"
        assert read(get(adapter, server.url, "POST", headers={"Content-Length": "1"}, body=b"x")) == b"hello"
        assert server.connections == 2


@pytest.mark.parametrize("sign_of_life", [b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"], ids=["time", "early hints"])
def test_a_request_that_a_peer_may_have_worked_on_is_not_sent_again(
    adapter: LlhttpAdapter, monkeypatch: pytest.MonkeyPatch, sign_of_life: bytes
) -> None:
    monkeypatch.setattr("openai_compat.backends.http.transport.STALE_WINDOW", 60.0 if sign_of_life else 0.1)

    def dies_at_work(client: socket.socket) -> None:
        read_request(client)
        client.sendall(OK)
        read_request(client)
        client.sendall(sign_of_life)
        time.sleep(0 if sign_of_life else 0.3)

    with RawServer(dies_at_work, answer_with(OK)) as server:
        assert read(get(adapter, server.url)) == b"hello"
        with pytest.raises(ConnectionError):
            get(adapter, server.url, "POST", headers={"Content-Length": "1"}, body=b"x")
        assert server.connections == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_body_that_can_be_read_once_goes_over_a_new_connection(adapter: LlhttpAdapter, method: str) -> None:
    with RawServer(answer_with(OK, OK), answer_with(OK)) as server:
        assert read(get(adapter, server.url)) == b"hello"
        assert read(get(adapter, server.url, method, headers={"Content-Length": "2"}, body=iter([b"hi"]))) == b"hello"
        assert server.connections == 2


@pytest.mark.parametrize("fault", [ConnectionResetError("by the client"), TimeoutError("the client's")], ids=repr)
def test_a_client_that_fails_is_not_taken_for_the_upstream(adapter: LlhttpAdapter, fault: Exception) -> None:
    def upload() -> Iterator[bytes]:
        yield b"a"
        raise fault

    with RawServer(wait_for_close) as server, pytest.raises(type(fault)) as caught:
        get(adapter, server.url, "POST", headers={"Content-Length": "9"}, body=upload())
    assert caught.value is fault


def test_an_empty_block_is_not_the_end_of_a_body(adapter: LlhttpAdapter) -> None:
    seen: list[bytes] = []

    def script(client: socket.socket) -> None:
        seen.append(read_request(client).partition(b"\r\n\r\n")[2])
        client.sendall(OK)

    limits = Deadlines(Timeouts(first_byte=5))
    with RawServer(script) as server:
        body = iter([b"a", b"", b"b"])
        get(adapter, server.url, "POST", headers={"Content-Length": "2"}, body=body, timeout=limits)
    assert seen == [b"ab"]


def test_one_connection_that_cannot_be_closed_keeps_no_other_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai_compat.backends.http.pool.IDLE_TIMEOUT", 0.02)
    monkeypatch.setattr("openai_compat.backends.http.pool.REAP_INTERVAL", 0.01)
    is_closed = threading.Event()

    class Idle(Connection):
        def __init__(self, close: Callable[[], None]) -> None:
            self.origin = Origin("http", "upstream.test", 80, None)
            self.close = close  # type: ignore[method-assign]

    def fail() -> None:
        raise RuntimeError("it cannot be closed")

    pool = ConnectionPool(9)
    pool.release(Idle(fail))
    pool.release(Idle(is_closed.set))
    assert is_closed.wait(5)


def test_connections_that_nobody_needs_are_closed_in_time(
    adapter: LlhttpAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openai_compat.backends.http.pool.IDLE_TIMEOUT", 0.02)
    monkeypatch.setattr("openai_compat.backends.http.pool.REAP_INTERVAL", 0.01)
    is_closed = threading.Event()

    def script(client: socket.socket) -> None:
        read_request(client)
        client.sendall(OK)
        wait_for_close(client)
        is_closed.set()

    with RawServer(script) as server:
        assert read(get(adapter, server.url)) == b"hello"
        assert is_closed.wait(5)


def test_what_cannot_be_sent_again_gets_a_connection_of_its_own(adapter: LlhttpAdapter) -> None:
    def dies_on_the_second(client: socket.socket) -> None:
        read_request(client)
        client.sendall(OK)
        read_request(client)

    with RawServer(dies_on_the_second, answer_with(OK)) as server:
        assert read(get(adapter, server.url)) == b"hello"
        assert read(get(adapter, server.url, "POST", headers={"Content-Length": "0"})) == b"hello"
        assert server.connections == 2, "it went over the kept connection, on which nobody could repeat it"


def test_the_request_on_the_wire(adapter: LlhttpAdapter) -> None:
    seen: list[bytes] = []

    def script(client: socket.socket) -> None:
        seen.append(read_request(client))
        client.sendall(OK)

    with RawServer(script) as server:
        get(adapter, f"{server.url}/v1/x?y=%20z", "POST", headers={"X-Name": "ü", "Content-Length": "2"}, body=b"hi")
        host = f"127.0.0.1:{server.port}"
    assert seen == [
        f"POST /v1/x?y=%20z HTTP/1.1\r\nHost: {host}\r\nX-Name: ü\r\nContent-Length: 2\r\n\r\nhi".encode("latin-1")
    ]


def test_a_large_and_a_chunked_body_arrive_whole(adapter: LlhttpAdapter) -> None:
    seen: list[bytes] = []

    def script(client: socket.socket) -> None:
        seen.append(read_request(client).partition(b"\r\n\r\n")[2])
        client.sendall(OK)

    large = b"x" * 3_000_000
    with RawServer(script) as server:
        get(adapter, server.url, "POST", headers={"Content-Length": str(len(large))}, body=large)
        get(adapter, server.url, "POST", headers={"Transfer-Encoding": "chunked"}, body=in_chunks(iter([b"ab", b"c"])))
    assert seen == [large, b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"]


def test_an_answer_that_comes_before_the_body_is_sent_counts(adapter: LlhttpAdapter) -> None:
    def refuses(client: socket.socket) -> None:
        client.recv(1000)
        client.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        wait_for_close(client)

    with RawServer(refuses) as server:
        body = b"x" * 20_000_000
        assert (
            get(adapter, server.url, "POST", headers={"Content-Length": str(len(body))}, body=body).status_code == 413
        )


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "日本"])
@pytest.mark.parametrize("name", ["X-Name", "host"])
def test_a_header_cannot_smuggle_another(adapter: LlhttpAdapter, name: str, value: str) -> None:
    with pytest.raises(InvalidHeader):
        get(adapter, "http://127.0.0.1:9/", headers={name: value})


@pytest.mark.parametrize(
    "url", ["ftp://x/", "http:///x", "http://h:port/", "http://[h/", "http://h/a b", "http://h/\r\nX: 1"]
)
def test_a_url_that_cannot_be_sent_is_refused(adapter: LlhttpAdapter, url: str) -> None:
    with pytest.raises(InvalidURL):
        get(adapter, url)


def test_a_head_request_has_no_body_to_wait_for(adapter: LlhttpAdapter) -> None:
    with RawServer(answer_with(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")) as server:
        assert read(get(adapter, server.url, "HEAD")) == b""


# Time limits. The limits are small and the peers silent for good, so nothing depends on how fast the machine is.


def silent_after(answer: bytes) -> RawServer:
    def script(client: socket.socket) -> None:
        read_request(client)
        client.sendall(answer)
        wait_for_close(client)

    return RawServer(script)


STARTED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n"


def test_the_first_byte_has_a_limit(adapter: LlhttpAdapter) -> None:
    with silent_after(b"") as server, pytest.raises(ReadTimeout):
        get(adapter, server.url, timeout=Deadlines(Timeouts(first_byte=0.1)))


@pytest.mark.parametrize("timeouts", [Timeouts(idle=0.1), Timeouts(idle=0, total=0.1)], ids=["idle", "total"])
@pytest.mark.parametrize("heartbeat_interval", [0.0, 0.03])
def test_silence_within_an_answer_has_a_limit(
    adapter: LlhttpAdapter, timeouts: Timeouts, heartbeat_interval: float
) -> None:
    with silent_after(STARTED) as server:
        raw = get(adapter, server.url, timeout=Deadlines(timeouts, CancellationToken(), heartbeat_interval)).raw
        assert raw.read1() == b"hel"
        with pytest.raises(ReadTimeout):
            all(raw.read1() is None for _ in range(100))


def test_silence_is_told_before_it_is_too_long(adapter: LlhttpAdapter) -> None:
    with silent_after(STARTED) as server:
        raw = get(adapter, server.url, timeout=Deadlines(Timeouts(), CancellationToken(), 0.02)).raw
        assert [raw.read1(), raw.read1(), raw.read1()] == [b"hel", None, None]
        raw.close()


@pytest.mark.parametrize("answer", [b"", STARTED], ids=["before the first byte", "within the answer"])
def test_a_cancelled_call_ends_at_once_and_closes_the_connection(adapter: LlhttpAdapter, answer: bytes) -> None:
    is_closed = threading.Event()

    def script(client: socket.socket) -> None:
        read_request(client)
        client.sendall(answer)
        wait_for_close(client)
        is_closed.set()

    cancellation = CancellationToken()
    threading.Timer(0.05, cancellation.cancel).start()
    began = time.monotonic()
    with RawServer(script) as server:
        with pytest.raises((ConnectionError, ChunkedEncodingError)):
            read(get(adapter, server.url, timeout=Deadlines(Timeouts(), cancellation)))
        assert is_closed.wait(5)
    assert time.monotonic() - began < 5


def test_a_cancelled_call_is_over_even_where_the_end_of_the_connection_would_end_the_answer(
    adapter: LlhttpAdapter,
) -> None:
    cancellation = CancellationToken()
    with silent_after(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhel") as server:
        raw = get(adapter, server.url, timeout=Deadlines(Timeouts(), cancellation)).raw
        assert raw.read1() == b"hel"
        threading.Timer(0.05, cancellation.cancel).start()
        with pytest.raises(ChunkedEncodingError):
            raw.read1()


def test_a_reader_that_knows_the_end_keeps_the_connection(adapter: LlhttpAdapter) -> None:
    def script(client: socket.socket) -> None:
        for _ in range(2):
            read_request(client)
            client.sendall(STARTED)
            client.sendall(b"0\r\n\r\n")

    with RawServer(script) as server:
        for _ in range(2):
            raw = get(adapter, server.url).raw
            assert raw.read1() == b"hel"
            raw.release()
        assert server.connections == 1


# Proxies.


def test_http_goes_through_a_proxy_by_its_full_address(adapter: LlhttpAdapter) -> None:
    seen: list[bytes] = []

    def proxy(client: socket.socket) -> None:
        seen.append(read_request(client))
        client.sendall(OK)

    with RawServer(proxy) as server:
        response = get(adapter, "http://upstream.test/v1/models", proxies={"http": server.url})
        assert read(response) == b"hello"
    assert seen[0].startswith(b"GET http://upstream.test/v1/models HTTP/1.1\r\nHost: upstream.test\r\n")


def test_what_the_addresses_name_as_user_goes_along(adapter: LlhttpAdapter) -> None:
    seen: list[bytes] = []

    def proxy(client: socket.socket) -> None:
        seen.append(read_request(client))
        client.sendall(OK)

    with RawServer(proxy) as server:
        through = f"me:p%40ss@127.0.0.1:{server.port}"
        get(adapter, "http://bob:hunter2@upstream.test/", proxies={"http": through})
        get(adapter, f"http://bob:hunter2@127.0.0.1:{server.port}/", headers={"authorization": "Bearer k"})
    assert b"\r\nproxy-authorization: Basic bWU6cEBzcw==\r\n" in seen[0]
    assert b"\r\nauthorization: Basic Ym9iOmh1bnRlcjI=\r\n" in seen[0]
    assert b"\r\nauthorization: Bearer k\r\n" in seen[1]
    assert b"Basic" not in seen[1]


@pytest.mark.parametrize("proxy", ["https://proxy.test:1", "socks5://proxy.test:1"])
def test_a_proxy_of_another_kind_is_refused_before_anything_is_sent(adapter: LlhttpAdapter, proxy: str) -> None:
    with pytest.raises(ProxyError, match="only HTTP proxies"):
        get(adapter, "http://upstream.test/", proxies={"http": proxy})


@pytest.mark.parametrize("proxy", ["http://me:hunter2@proxy.test:hunter2", "http://[hunter2"])
def test_a_proxy_that_cannot_be_read_is_not_shown(adapter: LlhttpAdapter, proxy: str) -> None:
    with pytest.raises(ProxyError) as caught:
        get(adapter, "https://upstream.test/", proxies={"https": proxy})
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", ["host", "Host"])
def test_a_host_header_of_its_own_is_the_only_one(adapter: LlhttpAdapter, name: str) -> None:
    seen: list[bytes] = []

    def script(client: socket.socket) -> None:
        seen.append(read_request(client))
        client.sendall(OK)

    with RawServer(script) as server:
        get(adapter, server.url, headers={name: "other.test"})
    assert seen[0].lower().count(b"\r\nhost: ") == 1
    assert b"Host: other.test\r\n" in seen[0]


def test_a_name_that_is_none_is_no_fault_of_this_server(adapter: LlhttpAdapter) -> None:
    with pytest.raises(ConnectionError):
        get(adapter, "http://a..b/")


def test_a_name_that_no_certificate_can_have_is_no_fault_of_this_server(adapter: LlhttpAdapter) -> None:
    def proxy(client: socket.socket) -> None:
        read_request(client)
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        wait_for_close(client)

    with RawServer(proxy) as server, pytest.raises(ConnectionError):
        get(adapter, "https://a..b/", proxies={"https": f"127.0.0.1:{server.port}"})


def test_https_asks_a_proxy_for_a_tunnel(adapter: LlhttpAdapter) -> None:
    seen: list[bytes] = []

    def proxy(client: socket.socket) -> None:
        seen.append(read_request(client))
        client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

    with RawServer(proxy) as server, pytest.raises(ConnectionError):
        get(adapter, "https://upstream.test/", proxies={"https": server.url.replace("//", "//me:p%40ss@")})
    assert seen[0].startswith(b"CONNECT upstream.test:443 HTTP/1.1\r\nHost: upstream.test:443\r\n")
    assert b"Proxy-Authorization: Basic bWU6cEBzcw==\r\n" in seen[0]


# Who leaves while a connection is being made.


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """Where a connection is neither taken nor refused: the listener's queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as waiting:
        address = listener.getsockname()
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(address)
        time.sleep(0.05)
        yield address[1]


def test_a_client_that_leaves_during_the_connect_ends_it(adapter: LlhttpAdapter, deaf_port: int) -> None:
    assert_ends_with_the_call(adapter, f"http://127.0.0.1:{deaf_port}/")


def test_a_client_that_leaves_during_the_handshake_ends_it(adapter: LlhttpAdapter) -> None:
    with RawServer(wait_for_close) as server:
        assert_ends_with_the_call(adapter, server.url.replace("http:", "https:"))


def test_a_client_that_leaves_during_the_opening_of_a_tunnel_ends_it(adapter: LlhttpAdapter) -> None:
    with RawServer(wait_for_close) as server:
        assert_ends_with_the_call(adapter, "https://upstream.test/", proxies={"https": server.url})


@pytest.mark.parametrize("answer", [b"", STARTED], ids=["before the first byte", "within the answer"])
def test_a_client_that_leaves_an_answer_over_tls_ends_it(
    adapter: LlhttpAdapter, certificate: Path, answer: bytes
) -> None:
    def script(client: socket.socket) -> None:
        read_request(client)
        client.sendall(answer)
        wait_for_close(client)

    with RawServer(over_tls(certificate, script)) as server:
        assert_ends_with_the_call(adapter, f"https://localhost:{server.port}/", verify=str(certificate))


def assert_ends_with_the_call(adapter: LlhttpAdapter, url: str, **options: object) -> None:
    cancellation = CancellationToken()
    threading.Timer(0.3, cancellation.cancel).start()
    began = time.monotonic()
    with pytest.raises((ConnectionError, ChunkedEncodingError, CallCancelledError)):
        read(get(adapter, url, timeout=Deadlines(Timeouts(connect=30), cancellation), **options))
    assert 0.2 < time.monotonic() - began < 5
    assert not cancellation._callbacks


def test_the_same_under_gevent() -> None:
    """Sockets, threads and TLS are gevent's then, as in a worker."""
    code = "from gevent import monkey; monkey.patch_all(); import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    selected = ["-k", "leaves or cancelled or handshake or address or tls", "-p", "no:cacheprovider", "-q"]
    ran = subprocess.run([sys.executable, "-c", code, *selected, __file__], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


# A name with more than one address.


def at_addresses(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_arguments, **_options: found)


def test_an_address_where_nobody_answers_leaves_time_for_the_next(
    adapter: LlhttpAdapter, deaf_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(answer_with(OK)) as server:
        at_addresses(monkeypatch, deaf_port, server.port)
        response = get(adapter, "http://upstream.test/", timeout=Deadlines(Timeouts(connect=0.5)))
        assert read(response) == b"hello"


def test_all_addresses_together_have_one_limit(
    adapter: LlhttpAdapter, deaf_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_addresses(monkeypatch, *[deaf_port] * 20)
    began = time.monotonic()
    with pytest.raises(ConnectTimeout):
        get(adapter, "http://upstream.test/", timeout=Deadlines(Timeouts(connect=0.3)))
    assert time.monotonic() - began < 3


def test_a_handshake_that_nobody_answers_has_the_same_limit(adapter: LlhttpAdapter) -> None:
    with RawServer(wait_for_close) as server, pytest.raises(ConnectTimeout):
        get(adapter, server.url.replace("http:", "https:"), timeout=Deadlines(Timeouts(connect=0.2)))
