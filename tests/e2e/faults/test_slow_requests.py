"""Clients that send their request slowly, in part, or not at all."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
import requests

from openai_compat.server.connections import RESERVED_CONNECTIONS
from tests.support.live_server import LiveServer
from tests.support.waiting import wait_until

CONNECTIONS = 10
HEAD = b"POST %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n"
CHAT = b'{"model": "mock-gpt-model", "messages": [{"role": "user", "content": "hi"}]}'
CHAT_PATH = b"/v1/chat/completions"
TIMEOUT = 20
"""Seconds that bound a failing test."""


@pytest.fixture(scope="module")
def impatient() -> Iterator[LiveServer]:
    """Yield a server that waits for a second."""
    limits = {"REQUEST_HEAD_TIMEOUT": "1", "REQUEST_BODY_TIMEOUT": "1", "REQUEST_BODY_MIN_RATE": "100000"}
    with LiveServer({"API_KEYS": "key", **limits}) as live:
        yield live


@pytest.fixture(scope="module")
def small() -> Iterator[LiveServer]:
    """Yield a server with few connections, and memory for one large body."""
    limits = {"WORKER_CONNECTIONS": str(CONNECTIONS), "MAX_UNFINISHED_BODY_BYTES": "300000"}
    with LiveServer({"API_KEYS": "key", **limits}) as live:
        yield live


def connect(server: LiveServer, data: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(data)
    return client


def head(path: bytes = CHAT_PATH, *, key: bytes = b"key", framing: bytes) -> bytes:
    return HEAD % (path, key) + framing + b"\r\n\r\n"


def unfinished(path: bytes = CHAT_PATH, *, key: bytes = b"key") -> bytes:
    """Return a request without the last byte of its body."""
    return head(path, key=key, framing=b"Content-Length: %d" % (len(CHAT) + 1)) + CHAT


def read_response(client: socket.socket, *, until_closed: bool = True) -> tuple[int, dict[str, str], bytes]:
    """Return the status, headers and body of a response, after which the server closes the connection by default."""
    with client.makefile("rb") as file:
        status = int(file.readline().split()[1])
        lines = iter(file.readline, b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.decode().partition(":") for line in lines)}
        body = file.read() if until_closed else file.read(int(headers["content-length"]))
    return status, headers, body


def drip(client: socket.socket, data: bytes) -> None:
    """Send `data` again and again until the server closes the connection."""

    def run() -> None:
        with suppress(OSError):
            while True:
                client.sendall(data)
                time.sleep(0.05)

    threading.Thread(target=run, daemon=True).start()


def code_of(body: bytes) -> str:
    code: str = json.loads(body)["error"]["code"]
    return code


def check_health(server: LiveServer) -> int:
    return requests.get(f"{server.url}/healthz", timeout=TIMEOUT).status_code


def ask(server: LiveServer) -> requests.Response:
    headers = {"Authorization": "Bearer key"}
    return requests.post(f"{server.base_url}/chat/completions", json=json.loads(CHAT), headers=headers, timeout=TIMEOUT)


@pytest.mark.parametrize("dripped", [b"", b" "], ids=["silent", "dripping"])
@pytest.mark.parametrize("path", [CHAT_PATH, b"/v1/embeddings"])
def test_a_slow_body_gets_a_408_and_its_connection_is_closed(
    impatient: LiveServer, path: bytes, dripped: bytes
) -> None:
    with connect(impatient, head(path, framing=b"Content-Length: 99999")) as client:
        drip(client, dripped)
        status, headers, body = read_response(client)
    assert (status, headers["connection"], code_of(body)) == (408, "close", "request_timeout")


def test_a_slow_body_in_chunks_gets_a_408(impatient: LiveServer) -> None:
    with connect(impatient, head(framing=b"Transfer-Encoding: chunked")) as client:
        drip(client, b"1\r\nx\r\n")
        status, _, body = read_response(client)
    assert (status, code_of(body)) == (408, "request_timeout")


def test_a_slow_body_of_a_chat_page_gets_its_own_kind_of_error(impatient: LiveServer) -> None:
    with connect(impatient, unfinished(b"/ask")) as client:
        status, headers, body = read_response(client)
    assert (status, headers["connection"]) == (408, "close")
    assert json.loads(body)["content"] == "The message did not arrive in time. Please try again."


@pytest.mark.parametrize("dripped", [b"", b"x"], ids=["silent", "dripping"])
def test_a_slow_head_gets_a_408(impatient: LiveServer, dripped: bytes) -> None:
    with connect(impatient, b"GET /healthz HTTP/1.1\r\nX: ") as client:
        drip(client, dripped)
        status, headers, body = read_response(client)
    assert (status, headers["connection"], code_of(body)) == (408, "close", "request_timeout")


def test_a_connection_that_sent_nothing_waits_longer_than_a_head(impatient: LiveServer) -> None:
    with connect(impatient) as client:
        client.settimeout(1.5)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_received_bytes_extend_the_time_for_a_body(impatient: LiveServer) -> None:
    """After 300 kB the server waits for 4 s in total, and the client pauses for 1.5 s."""
    padding = b" " * 300_000
    with connect(impatient, head(framing=b"Content-Length: %d" % (len(padding) + len(CHAT))) + padding) as client:
        time.sleep(1.5)
        client.sendall(CHAT)
        assert read_response(client, until_closed=False)[0] == 200


def test_a_refused_body_is_not_read_for_long(impatient: LiveServer) -> None:
    """The connection stays usable if the body arrives, and is closed after 5 s without any of it."""
    with connect(impatient, unfinished(key=b"wrong")) as client:
        assert read_response(client, until_closed=False)[0] == 401
        client.sendall(b" " + unfinished(key=b"wrong"))
        assert read_response(client)[0] == 401


def test_bodies_beyond_the_memory_for_them_get_a_503(small: LiveServer) -> None:
    large = head(framing=b"Content-Length: 250001") + b" " * 250_000
    with connect(small, large) as first:
        rejected: list[tuple[int, dict[str, str], bytes]] = []

        def is_rejected() -> bool:
            with connect(small, large) as second:
                second.settimeout(0.5)
                with suppress(TimeoutError):  # the first one has not arrived completely
                    rejected.append(read_response(second, until_closed=False))
            return bool(rejected)

        wait_until(is_rejected, "a body is rejected")
        status, headers, body = rejected[0]
        assert (status, headers["retry-after"], code_of(body)) == (503, "1", "server_overloaded")
        assert ask(small).status_code == 200
        first.close()
    wait_until(lambda: is_accepted(small, large + b" "), "the memory is free again")


def is_accepted(server: LiveServer, request: bytes) -> bool:
    with connect(server, request) as client:
        return read_response(client, until_closed=False)[0] == 400


def occupy(server: LiveServer, clients: ExitStack, data: bytes, count: int = CONNECTIONS) -> list[socket.socket]:
    return [clients.enter_context(connect(server, data)) for _ in range(count)]


@pytest.mark.parametrize("data", [b"", b"GET /v1/models HTTP/1.1\r\nX: "], ids=["nothing", "half a head"])
def test_silent_connections_do_not_keep_others_out(small: LiveServer, data: bytes) -> None:
    with ExitStack() as clients:
        occupy(small, clients, data, 2 * (CONNECTIONS + RESERVED_CONNECTIONS))
        assert check_health(small) == 200
        assert ask(small).status_code == 200


def test_connections_kept_for_the_next_request_are_closed_when_slots_get_scarce(small: LiveServer) -> None:
    with ExitStack() as clients:
        idle = occupy(small, clients, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        for client in idle:
            assert read_response(client, until_closed=False)[0] == 200
        silent = occupy(small, clients, b"", 1)
        assert ask(small).status_code == 200
        assert silent[0].recv(1) == b""
        closed = [client for client in idle if is_closed(client)]
        assert closed == idle[: len(closed)]
        assert len(closed) < CONNECTIONS / 2


def is_closed(client: socket.socket) -> bool:
    client.settimeout(0.1)
    with suppress(TimeoutError):
        return client.recv(1) == b""
    return False


@pytest.mark.parametrize("path", ["/healthz", "/health", "/readyz", "/api/v1/healthcheck"])
def test_health_checks_are_answered_while_all_connections_are_in_use(small: LiveServer, path: str) -> None:
    with ExitStack() as clients:
        occupy_with_bodies(small, clients)
        response = requests.get(small.url + path, timeout=TIMEOUT)
        assert (response.status_code, response.headers["connection"]) == (200, "close")
        rejected = ask(small)
        assert (rejected.status_code, rejected.headers["retry-after"]) == (503, "1")
        assert rejected.json()["error"]["code"] == "server_overloaded"
        occupy(small, clients, b"", 2 * RESERVED_CONNECTIONS)
        assert check_health(small) == 200
    wait_until(lambda: ask(small).status_code == 200, "connections are free again")


def occupy_with_bodies(server: LiveServer, clients: ExitStack) -> None:
    """Fill all slots with requests whose bodies are unfinished, and wait until the server refuses another one."""

    def is_full() -> bool:
        occupy(server, clients, unfinished(), 1)
        return ask(server).status_code == 503

    wait_until(is_full, "all connections are in use")


@pytest.mark.parametrize("data", [unfinished(), unfinished(key=b"wrong"), b"GET / HTTP/1.1\r\nHo"])
def test_a_stop_does_not_wait_for_slow_requests(data: bytes) -> None:
    with LiveServer({"API_KEYS": "key", "GRACEFUL_TIMEOUT": "300"}) as server, connect(server, data) as client:
        assert check_health(server) == 200
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(TIMEOUT)
        answer = client.recv(65536)
    assert not data.endswith(CHAT) or b"Bearer wrong" in data or b'"code":"server_shutting_down"' in answer


def send_and_read(server: LiveServer, data: bytes) -> tuple[int, dict[str, str], bytes]:
    with connect(server, data) as client:
        return read_response(client)


def test_large_heads_and_trailers_are_refused(impatient: LiveServer) -> None:
    headers = b"".join(b"X-%d: %b\r\n" % (number, b"a" * 16_000) for number in range(5))
    status, _, body = send_and_read(impatient, b"GET /healthz HTTP/1.1\r\n" + headers + b"\r\n")
    assert (status, json.loads(body)["error"]["type"]) == (431, "invalid_request_error")
    chunks = b"%x\r\n%b\r\n0\r\n" % (len(CHAT), CHAT)
    status, _, body = send_and_read(impatient, head(framing=b"Transfer-Encoding: chunked") + chunks + headers + b"\r\n")
    assert (status, json.loads(body)["error"]["type"]) == (400, "invalid_request_error")


NAMES: list[Callable[[bytes], bytes]] = [
    lambda path: b"GET /x%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nSCRIPT_NAME: /x\r\n\r\n" % path,
    lambda path: b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\nPATH_INFO: %b\r\n\r\n" % path,
]


@pytest.mark.parametrize("request_to", NAMES, ids=["SCRIPT_NAME", "PATH_INFO"])
def test_a_header_named_like_a_variable_of_wsgi_changes_no_path(
    impatient: LiveServer, request_to: Callable[[bytes], bytes]
) -> None:
    assert send_and_read(impatient, request_to(b"/healthz"))[0] == 404


def test_a_header_with_an_underscore_stands_for_no_other_one(impatient: LiveServer) -> None:
    data = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX_API_Key: key\r\n\r\n"
    assert send_and_read(impatient, data)[0] == 401
    assert send_and_read(impatient, data.replace(b"_", b"-"))[0] == 200
