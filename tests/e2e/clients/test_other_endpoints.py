"""Passthrough of endpoints without an implementation, such as files, audio and batches, streamed both ways."""

from __future__ import annotations

import hashlib
import http.client
import io
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.clients.conftest import UPSTREAM_KEY
from tests.e2e.clients.raw_http import TIMEOUT, RawAnswer, exchange
from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.raw_server import RawServer, Script

BLOCK_BYTES = 65_536
"""Block size in which the server reads uploads."""
BOUNDARY = "----a boundary"
FORM = (
    b'------a boundary\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'------a boundary\r\nContent-Disposition: form-data; name="file"; filename="\xc3\xa9.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n\x00\xff\r\n\r\n------a boundary--\r\n"
)
FILE = bytes(range(256)) * 256 * 4
"""Content of every file of the mock upstream."""

CALLS: dict[str, tuple[str, str, bytes | None, dict[str, str]]] = {
    "list": ("GET", "/v1/files?limit=3&after=a%2Fb&purpose=", None, {}),
    "download": ("GET", "/v1/files/file-1/content", None, {}),
    "upload": ("POST", "/v1/files", FORM, {"content-type": f'multipart/form-data; boundary="{BOUNDARY}"'}),
    "JSON": ("POST", "/v1/moderations", b'{"model": "m",  "input": "\xc3\xa9"}', {}),
    "no body": ("POST", "/v1/batches/batch-1/cancel", None, {}),
    "invalid JSON": ("POST", "/v1/moderations", b"{", {}),
    "bytes": ("PUT", "/v1/uploads/part", bytes(range(256)), {"content-type": "application/octet-stream"}),
    "delete": ("DELETE", "/v1/files/file-1", None, {}),
    "patch": ("PATCH", "/v1/anything", b"{}", {}),
    "escapes": ("GET", "/v1/files/a%2Fb%20c%25/%C3%A9?q=%26", None, {}),
    "chat completions: list": ("GET", "/v1/chat/completions?limit=2", None, {}),
    "chat completions: retrieve": ("GET", "/v1/chat/completions/chatcmpl-1", None, {}),
    "chat completions: update": ("POST", "/v1/chat/completions/chatcmpl-1", b'{"metadata": {}}', {}),
    "models: delete": ("DELETE", "/v1/models/ft:mine", None, {}),
}


def without_headers(answer: RawAnswer) -> Any:
    """Return the body, without the request headers that the mock upstream describes."""
    if answer.headers["content-type"] != "application/json":
        return answer.body
    return {name: value for name, value in answer.json().items() if name != "headers"}


class TestSameAsUpstream:
    @pytest.mark.parametrize(("method", "path", "body", "headers"), CALLS.values(), ids=CALLS)
    def test_calls(
        self,
        mock: MockUpstream,
        proxy: LiveServer,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
    ) -> None:
        direct = exchange(mock.url, method, path, body, headers)
        proxied = exchange(proxy.url, method, path, body, headers)
        assert direct.status == proxied.status == 200
        assert without_headers(proxied) == without_headers(direct)
        assert proxied.headers["content-type"] == direct.headers["content-type"]
        assert proxied.headers["x-ratelimit-limit-tokens"] == direct.headers["x-ratelimit-limit-tokens"]
        assert not {"set-cookie", "x-internal-secret"} & proxied.headers.keys()

    def test_head(self, mock: MockUpstream, proxy: LiveServer) -> None:
        direct, proxied = exchange(mock.url, "HEAD", "/v1/files/x"), exchange(proxy.url, "HEAD", "/v1/files/x")
        assert (proxied.status, proxied.body) == (direct.status, b"")
        assert mock.requests()[-1]["method"] == "HEAD"

    def test_forwarded_headers(self, mock: MockUpstream, proxy: LiveServer) -> None:
        sent = {"range": "bytes=0-9", "if-none-match": '"a"', "accept": "text/plain", "cookie": "a=b", "x-secret": "1"}
        exchange(proxy.url, "GET", "/v1/files/x", headers=sent)
        seen = mock.requests()[-1]["headers"]
        assert {name: seen.get(name) for name in sent} == {**sent, "cookie": None, "x-secret": None}
        assert seen["authorization"] == "Bearer sk-of-the-caller"

    @pytest.mark.parametrize("path", ["/v1/../__mock__/stats", "/v1/%2e%2e/__mock__/stats", "/v1/files/%2E./%2e%2e/x"])
    def test_a_path_cannot_leave_the_upstreams_root(self, mock: MockUpstream, proxy: LiveServer, path: str) -> None:
        answer = exchange(proxy.url, "GET", path)
        assert answer.status == 404
        assert answer.json()["error"]["code"] == "unknown_url"
        assert mock.stats()["requests_total"] == 0


class TestPythonClient:
    def test_upload(self, client: openai.OpenAI, mock: MockUpstream) -> None:
        content = bytes(range(256)) * 4000
        answer = client.files.create(file=("data.bin", io.BytesIO(content)), purpose="batch").to_dict()
        assert answer["method"] == "POST"
        assert str(answer["content_type"]).startswith("multipart/form-data; boundary=")
        assert len(content) < int(str(answer["body_bytes"])) < len(content) + 1000

    def test_a_file_larger_than_any_json_body(self, client: openai.OpenAI, mock: MockUpstream) -> None:
        content = b"x" * (40 * 1024 * 1024)
        answer = client.files.create(file=("large.bin", content), purpose="batch").to_dict()
        assert int(str(answer["body_bytes"])) > len(content)

    def test_download(self, client: openai.OpenAI, tmp_path: Path) -> None:
        assert client.files.content("file-1").read() == FILE
        with client.files.with_streaming_response.content("file-1") as response:
            response.stream_to_file(tmp_path / "file")
        assert hashlib.sha256((tmp_path / "file").read_bytes()).digest() == hashlib.sha256(FILE).digest()

    def test_audio_and_images(self, client: openai.OpenAI, mock: MockUpstream) -> None:
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"RIFF"))
        with client.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input="hi") as speech:
            assert speech.read()
        client.images.generate(model="gpt-image-1", prompt="a cat")
        client.moderations.create(input="hello")
        client.batches.cancel("batch-1")
        assert [(request["method"], request["path"]) for request in mock.requests()] == [
            ("POST", "/v1/audio/transcriptions"),
            ("POST", "/v1/audio/speech"),
            ("POST", "/v1/images/generations"),
            ("POST", "/v1/moderations"),
            ("POST", "/v1/batches/batch-1/cancel"),
        ]

    def test_an_api_key_is_required(self, configured_server: LiveServer, mock: MockUpstream) -> None:
        base_url = configured_server.base_url
        with openai.OpenAI(base_url=base_url, api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
            client.files.list()
        assert mock.stats()["requests_total"] == 0
        with openai.OpenAI(base_url=base_url, api_key="key-one") as client:
            client.files.list()
        assert mock.requests()[-1]["headers"]["authorization"] == f"Bearer {UPSTREAM_KEY}"


def receive_until(connection: socket.socket, marker: bytes) -> bytes:
    data = b""
    while marker not in data:
        block = connection.recv(65536)
        assert block, f"the connection ended before {marker!r}: {data!r}"
        data += block
    return data


class Scripted:
    """A server, and an upstream that runs `script` for each connection."""

    def __init__(self) -> None:
        self.script: Script = bytes
        self.server: LiveServer

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=TIMEOUT)

    def run(self, connection: socket.socket) -> None:
        self.script(connection)


@pytest.fixture(scope="module")
def scripted() -> Iterator[Scripted]:
    scripted = Scripted()
    with (
        RawServer(scripted.run) as upstream,
        LiveServer({"OPENAI_BASE_URL": f"{upstream.url}/v1"}) as scripted.server,
    ):
        yield scripted


class TestStreamedBothWays:
    """Each step is taken only when the result of the previous one has arrived."""

    def test_upload_and_download(self, scripted: Scripted) -> None:
        has_first_part, has_first_block = threading.Event(), threading.Event()
        problems: list[BaseException] = []

        def script(connection: socket.socket) -> None:
            try:
                data = receive_until(connection, b"x" * BLOCK_BYTES)
                assert b"last" not in data
                has_first_part.set()
                receive_until(connection, b"last")
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 10\r\n\r\nfirst")
                assert has_first_block.wait(TIMEOUT)
                connection.sendall(b"block")
            except BaseException as problem:  # noqa: BLE001 - it is raised again in the test's own thread
                problems.append(problem)

        body = b"x" * (4 * BLOCK_BYTES) + b"last"
        head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        scripted.script = script
        with closing(scripted.connect()) as client:
            client.sendall(head + body[:-4])
            assert has_first_part.wait(TIMEOUT), "the server buffers the upload"
            client.sendall(body[-4:])
            answer_head, _, answer_body = receive_until(client, b"first").partition(b"\r\n\r\n")
            assert b"block" not in answer_body
            has_first_block.set()
            receive_until(client, b"block")
        assert not problems
        assert b"audio/mpeg" in answer_head
        assert b"\r\ncontent-length: 10" in answer_head.lower()

    def test_a_stream_of_the_responses_api(self, scripted: Scripted) -> None:
        """Events of an upstream that has the endpoint pass at once."""
        has_first_event = threading.Event()

        def event(number: int, kind: str, more: str) -> bytes:
            return f'event: {kind}\ndata: {{"type":"{kind}","sequence_number":{number},{more}}}\n\n'.encode()

        def script(connection: socket.socket) -> None:
            receive_until(connection, b'"stream":true')
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n")
            delta = '"item_id":"1","output_index":0,"content_index":0,"logprobs":[],"delta":"hel"'
            connection.sendall(event(0, "response.output_text.delta", delta))
            if has_first_event.wait(TIMEOUT):
                connection.sendall(event(1, "response.output_text.delta", delta.replace("hel", "lo")))
                connection.sendall(event(2, "response.completed", '"response":{"output":[]}'))

        scripted.script = script
        with (
            openai.OpenAI(base_url=scripted.server.base_url, api_key="any", max_retries=0) as client,
            client.responses.create(model="m", input="hi", stream=True) as stream,
        ):
            events = [next(stream)]
            has_first_event.set()
            events += stream
        assert [event.delta for event in events if event.type == "response.output_text.delta"] == ["hel", "lo"]
        assert stream.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.response.headers["x-accel-buffering"] == "no"

    @pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
    def test_a_truncated_download_is_an_error(self, scripted: Scripted, framing: str) -> None:
        """A file cannot contain an error, so the connection must break."""

        def script(connection: socket.socket) -> None:
            receive_until(connection, b"\r\n\r\n")
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n{framing}\r\n\r\n"
            connection.sendall(head.encode() + b"5\r\nfirst\r\n")

        scripted.script = script
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            exchange(scripted.server.url, "GET", "/v1/files/file-1/content")
        with (
            openai.OpenAI(base_url=scripted.server.base_url, api_key="any", max_retries=0) as client,
            pytest.raises(Exception, match=r"(?i)incomplete|closed|connection"),
        ):
            client.files.content("file-1")

    def test_a_client_disconnect_closes_the_upstream_connection(self, scripted: Scripted) -> None:
        def script(connection: socket.socket) -> None:
            receive_until(connection, b"\r\n\r\n")
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 100\r\n\r\nfirst")
            connection.settimeout(2 * TIMEOUT)
            assert connection.recv(1) == b""
            is_closed.set()

        is_closed = threading.Event()
        scripted.script = script
        with closing(scripted.connect()) as client:
            client.sendall(b"GET /v1/files/1/content HTTP/1.1\r\nHost: x\r\n\r\n")
            receive_until(client, b"first")
        assert is_closed.wait(TIMEOUT), "the upstream connection is still open"
