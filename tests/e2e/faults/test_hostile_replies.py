"""Upstreams whose answers are too large, never end, break off, or repeat this server's credentials."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.raw_server import RawServer, read_request

MAX_REPLY_BYTES = 2_000_000
SECRETS = {
    "default": "sk-of/the server+1",
    "custom": "custom-header-credential",
    "external": "external-api-credential",
    "password": "p@ss-of-the-url",
}
BIG = 200_000_000
"""Bytes of answers that the server must not take in."""
EVENT = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
Send = Callable[[socket.socket, bytes], None]


def head(content_type: str, *lines: str, status: int = 200) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} X", f"Content-Type: {content_type}", *lines, "", ""]).encode()


def completion(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()


def send_without_end(client: socket.socket, piece: bytes) -> int:
    """Send up to `BIG` bytes. Return how many were sent when the server closed the connection."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    sent = 0
    try:
        while sent < BIG:
            client.sendall(piece)
            sent += len(piece)
    except ConnectionError:
        pass
    return sent


class HostileUpstream:
    """Upstream that answers as the message or the last part of the path names it. `sent` has the bytes by this name."""

    def __init__(self) -> None:
        self.sent: dict[str, int] = {}
        self.bomb = gzip.compress(b'{"choices":[{"message":{"content":"' + bytes(BIG), 1)

    def __call__(self, client: socket.socket) -> None:
        request = read_request(client)
        line, body = request.split(b"\r\n", 1)[0], request.partition(b"\r\n\r\n")[2]
        found = re.search(rb'"case:([^"]+)"|([\w-]+) HTTP/1.1$', body or line)
        assert found is not None
        name = (found[1] or found[2]).decode()
        getattr(self, "send_" + name.replace("-", "_"))(client, request)

    def send_bomb_of_json(self, client: socket.socket, _: bytes) -> None:
        client.sendall(head("application/json", "Content-Encoding: gzip", f"Content-Length: {len(self.bomb)}"))
        client.sendall(self.bomb)

    def send_bomb_in_error(self, client: socket.socket, _: bytes) -> None:
        lines = ("Content-Encoding: gzip", f"Content-Length: {len(self.bomb)}")
        client.sendall(head("application/json", *lines, status=500) + self.bomb)

    def send_json_without_end(self, client: socket.socket, _: bytes) -> None:
        client.sendall(head("application/json") + b'{"choices":[{"message":{"content":"')
        self.sent["json-without-end"] = send_without_end(client, b" " * 65_536)

    def send_error_without_end(self, client: socket.socket, _: bytes) -> None:
        client.sendall(head("text/html", status=500))
        self.sent["error-without-end"] = send_without_end(client, b" " * 65_536)

    def send_events_without_end(self, client: socket.socket, _: bytes) -> None:
        client.sendall(head("text/event-stream"))
        self.sent["events-without-end"] = send_without_end(client, EVENT % (b"x" * 1000) * 50)

    def send_content(self, client: socket.socket, _: bytes) -> None:
        client.sendall(head("application/octet-stream", f"Content-Length: {3 * MAX_REPLY_BYTES}"))
        client.sendall(bytes(3 * MAX_REPLY_BYTES))

    def send_nothing_of_it(self, client: socket.socket, _: bytes) -> None:
        client.sendall(head("application/octet-stream", "Content-Length: 100"))

    def send_nothing_after_a_while(self, client: socket.socket, _: bytes) -> None:
        client.sendall(head("application/octet-stream", "Content-Length: 100"))
        time.sleep(0.5)  # longer than the interval of keep-alive comments

    def send_no_chunk(self, client: socket.socket, _: bytes) -> None:
        client.sendall(head("audio/mpeg", "Transfer-Encoding: chunked"))

    def send_broken_gzip(self, client: socket.socket, _: bytes) -> None:
        client.sendall(head("application/octet-stream", "Content-Encoding: gzip", "Content-Length: 5") + b"hello")

    def send_large_head(self, client: socket.socket, _: bytes) -> None:
        client.sendall(head("application/json", f"X-Padding: {'x' * 65_536}") + completion("hi"))

    def send_no_http(self, client: socket.socket, _: bytes) -> None:
        client.sendall(b"220 smtp.example.com ESMTP\r\n")

    def send_echoed_error(self, client: socket.socket, request: bytes) -> None:
        self._send_echo(client, request, 500)

    def send_echoed_refusal(self, client: socket.socket, request: bytes) -> None:
        self._send_echo(client, request, 418)

    def send_echoed_in_answer(self, client: socket.socket, request: bytes) -> None:
        self._send_echo(client, request, 200)

    def _send_echo(self, client: socket.socket, request: bytes, status: int) -> None:
        headers = request.partition(b"\r\n\r\n")[0].decode()
        error = {"message": f"the headers were {headers}", "type": "x", "param": None, "code": None, "debug": headers}
        body = json.dumps({"error": error}).encode()
        echoed = [line.partition(": ")[2] for line in headers.splitlines() if not line.startswith(("POST", "GET"))]
        lines = (f"Content-Length: {len(body)}", f"X-Request-Id: {' '.join(echoed)}", f"openai-x: {' '.join(echoed)}")
        client.sendall(head("application/json", *lines, status=status) + body)

    def send_echoed_in_stream(self, client: socket.socket, request: bytes) -> None:
        headers = request.partition(b"\r\n\r\n")[0].decode()
        error = {"error": {"message": headers, "type": "x", "param": None, "code": None}}
        client.sendall(head("text/event-stream") + EVENT % b"a" + f"data: {json.dumps(error)}\n\n".encode())
        client.sendall(f"data: broken {json.dumps(headers)}\n\n".encode())


@pytest.fixture(scope="module")
def hostile() -> HostileUpstream:
    return HostileUpstream()


@pytest.fixture(scope="module")
def server(hostile: HostileUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with RawServer(hostile) as upstream:
        root = f"{upstream.url}/v1"
        with_password = root.replace("http://", "http://user:p%40ss-of-the-url@")
        models: list[dict[str, Any]] = [
            {"name": "openai", "kind": "openai", "base_url": root, "api_key_env": "DEFAULT_KEY"},
            {"name": "custom", "kind": "openai", "base_url": root, "headers": {"x-a": "${CUSTOM}"}},
            {"name": "password", "kind": "openai", "base_url": with_password},
            {"name": "external", "kind": "external", "base_url": root, "headers": {"x-token": "${EXTERNAL}"}},
            {
                "name": "external-json",
                "kind": "external",
                "base_url": root,
                "api_key_env": "EXTERNAL",
                "reply": {"format": "json", "text": "choices[0].message.content"},
            },
            {"name": "databricks", "kind": "databricks", "base_url": root, "api_key_env": "DEFAULT_KEY"},
            {"name": "echo", "kind": "echo"},
            {"name": "route", "targets": [{"model": "openai"}], "fallbacks": ["echo"]},
        ]
        models_file = tmp_path_factory.mktemp("models") / "models.json"
        models_file.write_text(json.dumps(models))
        settings = {
            "OPENAI_BASE_URL": root,
            "OPENAI_API_KEY": SECRETS["default"],
            "MODELS_FILE": str(models_file),
            "DEFAULT_KEY": SECRETS["default"],
            "CUSTOM": SECRETS["custom"],
            "EXTERNAL": SECRETS["external"],
            "MAX_REPLY_BYTES": str(MAX_REPLY_BYTES),
            "SSE_KEEPALIVE_SECONDS": "0.1",
        }
        with LiveServer(settings) as live:
            yield live


def ask(server: LiveServer, case: str, model: str = "openai", stream: bool = False) -> requests.Response:
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": f"case:{case}"}]}
    return requests.post(f"{server.base_url}/chat/completions", json=body, timeout=60)


def peak_memory(server: LiveServer) -> int:
    """Return the largest resident memory that the worker has had so far, in MB."""
    (worker,) = server.workers()
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{worker}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


@pytest.mark.parametrize("model", ["openai", "databricks", "external", "external-json"])
@pytest.mark.parametrize("stream", [False, True], ids=["complete", "streamed"])
@pytest.mark.parametrize("case", ["bomb-of-json", "json-without-end"])
def test_an_answer_that_is_too_large_is_a_502_and_is_not_read_on(
    server: LiveServer, hostile: HostileUpstream, case: str, stream: bool, model: str
) -> None:
    reply = ask(server, case, model, stream)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_bad_reply"), reply.text[:500]
    assert f"larger than {MAX_REPLY_BYTES} bytes" in reply.json()["error"]["message"]
    assert hostile.sent.get(case, 0) < BIG / 4
    assert peak_memory(server) < 200


@pytest.mark.parametrize("case", ["bomb-in-error", "error-without-end"])
def test_an_error_that_is_too_large_is_a_502(server: LiveServer, hostile: HostileUpstream, case: str) -> None:
    reply = ask(server, case)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_bad_reply")
    assert ask(server, case, "external").status_code == 502
    assert hostile.sent.get(case, 0) < BIG / 4
    assert peak_memory(server) < 200


@pytest.mark.parametrize("model", ["openai", "external"])
def test_the_events_of_a_complete_answer_are_limited_together(
    server: LiveServer, hostile: HostileUpstream, model: str
) -> None:
    reply = ask(server, "events-without-end", model)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_bad_reply"), reply.text[:500]
    assert hostile.sent["events-without-end"] < BIG / 4
    assert peak_memory(server) < 200


@pytest.mark.parametrize("model", ["openai", "external", "databricks"])
@pytest.mark.parametrize("case", ["large-head", "no-http"])
def test_a_head_that_is_too_large_or_not_http_is_a_bad_reply(server: LiveServer, case: str, model: str) -> None:
    reply = ask(server, case, model)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_bad_reply")
    assert "head" in reply.json()["error"]["message"]
    assert ask(server, case, "route").json()["model"] == "echo", "another target may answer"


def test_a_download_may_be_larger_than_an_answer(server: LiveServer) -> None:
    reply = requests.get(f"{server.base_url}/files/f/content", timeout=60)
    assert (reply.status_code, len(reply.content)) == (200, 3 * MAX_REPLY_BYTES)


@pytest.mark.parametrize("name", ["nothing-of-it", "nothing-after-a-while", "no-chunk", "broken-gzip"])
def test_a_download_that_breaks_before_its_first_byte_is_a_502(server: LiveServer, name: str) -> None:
    reply = requests.get(f"{server.base_url}/files/{name}", timeout=60)
    assert reply.status_code == 502, reply.content
    assert reply.json()["error"]["type"] == "upstream_error"


def assert_has_no_secret(text: str) -> None:
    for secret in SECRETS.values():
        for form in (secret, secret.replace("/", "\\/"), requests.utils.quote(secret, safe="")):  # type: ignore[attr-defined]
            assert form not in text
    assert "dXNlcjpwQHNzLW9mLXRoZS11cmw=" not in text, "the credential that the URL's password makes"


@pytest.mark.parametrize("model", ["openai", "custom", "password", "databricks", "external", "external-json", "m"])
@pytest.mark.parametrize("stream", [False, True], ids=["complete", "streamed"])
@pytest.mark.parametrize("case", ["echoed-error", "echoed-refusal", "echoed-in-answer", "echoed-in-stream"])
def test_credentials_that_an_upstream_repeats_are_masked(
    server: LiveServer, case: str, stream: bool, model: str
) -> None:
    reply = ask(server, case, model, stream)
    assert_has_no_secret(f"{reply.headers} {reply.text}")
    if model not in {"external", "external-json"} and case != "echoed-in-stream":
        assert "***" in reply.text, "the upstream repeated no credential, so that the test shows nothing"
        assert model == "databricks" or "***" in reply.headers["openai-x"], "a translated answer relays no header"


@pytest.mark.parametrize("case", ["echoed-error", "echoed-refusal", "echoed-in-answer"])
def test_credentials_are_masked_in_other_answers(server: LiveServer, case: str) -> None:
    reply = requests.get(f"{server.base_url}/files/{case}", timeout=60)
    assert "***" in reply.headers["x-request-id"]
    assert_has_no_secret(str(reply.headers) if case == "echoed-in-answer" else f"{reply.headers} {reply.text}")
    questions = {"model": "openai", "messages": [{"role": "user", "content": f"case:{case}"}]}
    assert_has_no_secret(requests.post(f"{server.url}/ask", json=questions, timeout=60).text)


def test_the_log_shows_no_credential(server: LiveServer) -> None:
    assert_has_no_secret(server.log())
    assert "***" in server.log()
