"""Healthy answers of the mock upstream through the official client, and its faults as raw bytes."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.support.mock_upstream import ROOT, MockUpstream

MESSAGES = [{"role": "user", "content": "hello there"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}


@pytest.fixture(scope="module")
def running() -> Iterator[MockUpstream]:
    with MockUpstream() as upstream:
        yield upstream


@pytest.fixture
def mock(running: MockUpstream) -> MockUpstream:
    running.reset()
    return running


@pytest.fixture
def client(mock: MockUpstream) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=mock.base_url, api_key="any", max_retries=0) as client:
        yield client


def post(mock: MockUpstream, model: str, path: str = "/v1/chat/completions", **more: Any) -> bytes:
    """Return the raw bytes of the response up to the end of the connection."""
    with open_request(mock, model, path, **more) as connection:
        return read_to_end(connection)


def open_request(mock: MockUpstream, model: str, path: str = "/v1/chat/completions", **more: Any) -> socket.socket:
    """Send a chat and return the connection, which closes after the response."""
    body = json.dumps({"model": model, "messages": MESSAGES, **more}).encode()
    header_block = f"POST {path} HTTP/1.1\r\nhost: mock\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    connection = socket.create_connection(mock.address, timeout=5)
    connection.sendall(header_block.encode() + body)
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    """Return all bytes up to the end of the connection. A reset raises."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def exchange(mock: MockUpstream, method: str, path: str, body: Any = None, **headers: str) -> tuple[Any, bytes]:
    """Return a response and its body, read with the standard library's client."""
    connection = http.client.HTTPConnection(*mock.address, timeout=5)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def dechunked(raw: bytes) -> bytes:
    """Return the body of a raw chunked response. Fail if it does not end properly."""
    remaining = raw.split(b"\r\n\r\n", 1)[1]
    body = b""
    while True:
        size, remaining = remaining.split(b"\r\n", 1)
        length = int(size, 16)
        if not length:
            assert remaining == b"\r\n"
            return body
        body, remaining = body + remaining[:length], remaining[length + 2 :]


def events_of(body: bytes) -> list[Any]:
    """Return the parsed data of each event, and `[DONE]` as a string."""
    values = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]
    return [data.decode() if data == b"[DONE]" else json.loads(data) for data in values]


class TestHealthyChat:
    def test_json_answer_has_openais_keys_in_order(self, mock: MockUpstream) -> None:
        answer = json.loads(post(mock, "mock-model").split(b"\r\n\r\n", 1)[1])
        keys = ["id", "object", "created", "model", "choices", "usage", "service_tier", "system_fingerprint"]
        assert list(answer) == keys
        assert answer["choices"] == [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "You said: hello there",
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ]
        assert answer["usage"]["total_tokens"] == 10

    def test_the_same_request_returns_the_same_bytes(self, mock: MockUpstream) -> None:
        bodies = {post(mock, "mock-model", stream=True).split(b"\r\n\r\n", 1)[1] for _ in range(2)}
        assert len(bodies) == 1

    def test_stream_without_usage_has_no_usage_key(self, mock: MockUpstream) -> None:
        *chunks, done = events_of(dechunked(post(mock, "mock-model", stream=True)))
        assert done == "[DONE]"
        assert all("usage" not in chunk and chunk["choices"] for chunk in chunks)
        assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
        assert chunks[-1]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}

    def test_stream_with_usage_ends_with_a_usage_chunk(self, mock: MockUpstream) -> None:
        raw = post(mock, "mock-model", stream=True, stream_options={"include_usage": True})
        *chunks, last, _done = events_of(dechunked(raw))
        assert all(chunk["usage"] is None for chunk in chunks)
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] == 4

    def test_client_accumulates_a_stream(self, client: openai.OpenAI) -> None:
        stream = client.chat.completions.create(model="any-name", messages=MESSAGES, stream=True, n=2)
        texts = {0: "", 1: ""}
        for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
        assert texts == {0: "You said: hello there", 1: "You said: hello there (choice 2)"}

    def test_tools_return_a_tool_call(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(model="mock-model", messages=MESSAGES, tools=[TOOL])
        choice = answer.choices[0]
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "hello there", "days": 1}

    def test_streamed_tool_calls_accumulate(self, client: openai.OpenAI) -> None:
        with client.chat.completions.stream(
            model="mock-model:calls=2", messages=MESSAGES, tools=[TOOL], tool_choice="required"
        ) as stream:
            message = stream.get_final_completion().choices[0].message
        assert [call.function.name for call in message.tool_calls] == ["get_weather"] * 2
        assert json.loads(message.tool_calls[1].function.arguments)["city"] == "hello there"

    def test_tool_results_are_answered_with_text(self, client: openai.OpenAI) -> None:
        messages = [*MESSAGES, {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}]
        answer = client.chat.completions.create(model="mock-model", messages=messages, tools=[TOOL])
        assert answer.choices[0].finish_reason == "stop"

    def test_max_tokens_truncates_and_the_name_carries_options(self, client: openai.OpenAI) -> None:
        model = "mock-model:chunks=50,size=3"
        full = client.chat.completions.create(model=model, messages=MESSAGES)
        short = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=2)
        assert len(full.choices[0].message.content) == 150
        assert (short.choices[0].message.content, short.choices[0].finish_reason) == ("You sa", "length")

    @pytest.mark.parametrize("path", ["/chat/completions", "/openai/v1/chat/completions"])
    def test_openais_alternative_paths_are_served(self, mock: MockUpstream, path: str) -> None:
        assert b'"content": "You said: hello there"' in post(mock, "mock-model", path)

    def test_azure_client_is_served(self, mock: MockUpstream) -> None:
        with openai.AzureOpenAI(azure_endpoint=mock.url, api_key="any", api_version="2024-10-21") as client:
            answer = client.chat.completions.create(model="mock-model:size=2", messages=MESSAGES)
        assert answer.model == "mock-model:size=2"

    def test_responses_have_openais_headers(self, client: openai.OpenAI) -> None:
        raw = client.chat.completions.with_raw_response.create(model="mock-model", messages=MESSAGES)
        assert raw.headers["x-ratelimit-reset-requests"] == "8.64s"
        assert raw.headers["x-internal-secret"] == "do-not-relay"
        assert "set-cookie" in raw.headers
        assert raw.parse()._request_id.startswith("req_")


class TestOtherEndpoints:
    def test_completions_number_the_choices_of_all_prompts(self, client: openai.OpenAI) -> None:
        answer = client.completions.create(model="mock-model", prompt=["one", "two"], n=2)
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        assert answer.choices[2].text == "You said: two"
        stream = client.completions.create(model="mock-model", prompt="one", stream=True)
        assert "".join(chunk.choices[0].text for chunk in stream) == "You said: one"

    def test_embeddings_are_equal_in_both_encodings(self, mock: MockUpstream, client: openai.OpenAI) -> None:
        decoded = client.embeddings.create(model="mock-embedding", input=["a", "b"], dimensions=8)
        _, raw = exchange(
            mock, "POST", "/v1/embeddings", json.dumps({"model": "x", "input": ["a", "b"], "dimensions": 8})
        )
        assert [item["embedding"] for item in json.loads(raw)["data"]] == [item.embedding for item in decoded.data]
        assert sum(value * value for value in decoded.data[1].embedding) == pytest.approx(1)

    def test_models_are_listed_and_retrieved(self, client: openai.OpenAI) -> None:
        names = [model.id for model in client.models.list()]
        assert names[0] == "mock-model"
        assert client.models.retrieve("mock/model-with-slash").object == "model"
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve("unknown")
        assert caught.value.code == "model_not_found"

    def test_other_paths_return_a_description_of_the_request(self, mock: MockUpstream) -> None:
        _, body = exchange(mock, "POST", "/v1/audio/speech?a=1", iter([b"one", b"two"]), content_type="audio/wav")
        described = json.loads(body)
        assert (described["method"], described["path"], described["query"]) == ("POST", "/v1/audio/speech", "a=1")
        assert (described["body_bytes"], described["content_type"]) == (6, "audio/wav")
        assert described["body_sha256"] == hashlib.sha256(b"onetwo").hexdigest()

    def test_file_content_has_every_byte(self, mock: MockUpstream) -> None:
        _, body = exchange(mock, "GET", "/v1/files/file-1/content")
        assert body == bytes(range(256)) * 1024

    def test_head_has_no_body(self, mock: MockUpstream) -> None:
        response, body = exchange(mock, "HEAD", "/v1/models")
        assert (response.status, body) == (200, b"")
        assert int(response.headers["content-length"]) > 100

    def test_invalid_http_returns_400(self, mock: MockUpstream) -> None:
        with socket.create_connection(mock.address, timeout=5) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            assert read_to_end(connection).startswith(b"HTTP/1.1 400 ")

    def test_http_1_0_gets_no_chunks(self, mock: MockUpstream) -> None:
        body = json.dumps({"model": "mock-model", "messages": MESSAGES, "stream": True}).encode()
        with socket.create_connection(mock.address, timeout=5) as connection:
            connection.sendall(b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            header_block, content = read_to_end(connection).split(b"\r\n\r\n", 1)
        assert b"chunked" not in header_block
        assert events_of(content)[-1] == "[DONE]"

    def test_expect_continue_is_answered(self, mock: MockUpstream) -> None:
        with socket.create_connection(mock.address, timeout=5) as connection:
            connection.sendall(b"PUT /x HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
            assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(b"ok")
            assert b'"body_bytes": 2' in connection.recv(65536)


class TestErrors:
    @pytest.mark.parametrize(
        ("body", "param"),
        [
            (b'{"model": "mock-model"}', "messages"),
            (b"not json", None),
            (b'{"messages": []}', None),
            (b'{"model": "mock-model:delay=x", "messages": [{}]}', "model"),
            (b'{"model": "mock-model:nonsense=1", "messages": [{}]}', "model"),
            (b'{"model": "mock-model", "messages": [{}], "stream_options": {"include_usage": true}}', "stream_options"),
        ],
    )
    def test_invalid_bodies_return_400(self, mock: MockUpstream, body: bytes, param: str | None) -> None:
        response, content = exchange(mock, "POST", "/v1/chat/completions", body)
        error = json.loads(content)["error"]
        assert response.status == 400
        assert list(error) == ["message", "type", "param", "code"]
        assert (error["type"], error["param"]) == ("invalid_request_error", param)

    def test_unknown_fault_returns_404(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="fault-typing-error", messages=MESSAGES)

    @pytest.mark.parametrize(
        ("model", "status", "code"),
        [
            ("fault-status:code=401", 401, "invalid_api_key"),
            ("fault-status:code=404", 404, "model_not_found"),
            ("fault-status:code=429", 429, "rate_limit_exceeded"),
            ("fault-status:code=503", 503, None),
            ("fault-quota", 429, "insufficient_quota"),
            ("fault-context-length", 400, "context_length_exceeded"),
            ("fault-content-filter", 400, "content_filter"),
        ],
    )
    def test_error_models_return_their_status_and_code(
        self, client: openai.OpenAI, model: str, status: int, code: str | None
    ) -> None:
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model=model, messages=MESSAGES)
        assert (caught.value.status_code, caught.value.code) == (status, code)

    def test_status_fault_has_retry_headers_and_ends_after_times(self, mock: MockUpstream) -> None:
        model = "fault-status:code=429,times=1,retry_after=1.5,retry_after_ms=20"
        assert b"\r\nretry-after: 1.5\r\nretry-after-ms: 20\r\n" in post(mock, model)
        assert post(mock, model).startswith(b"HTTP/1.1 200 ")
        mock.reset()
        assert post(mock, model).startswith(b"HTTP/1.1 429 ")

    def test_errors_of_other_vendors(self, mock: MockUpstream) -> None:
        assert b'{"error_code": "BAD_REQUEST", "message"' in post(mock, "fault-databricks-error")
        assert b'{"object": "error", "message"' in post(mock, "fault-vllm-error")
        assert b"content-type: text/html\r\n" in post(mock, "fault-html-error")

    @pytest.mark.parametrize(
        ("model", "more"),
        [
            ("fault-databricks", {"stream": True, "stream_options": {"include_usage": True}}),
            ("fault-reject-stream-options", {"stream": True, "stream_options": {"include_usage": True}}),
            ("fault-reject-max-tokens", {"max_tokens": 3}),
            ("fault-reject-max-completion-tokens", {"max_completion_tokens": 3}),
        ],
    )
    def test_parameters_are_rejected(self, mock: MockUpstream, model: str, more: dict[str, Any]) -> None:
        assert post(mock, model, **more).startswith(b"HTTP/1.1 400 ")
        assert post(mock, model).startswith(b"HTTP/1.1 200 ")

    def test_a_wrong_api_key_returns_401(self) -> None:
        with MockUpstream("--api-key", "secret") as mock:
            assert exchange(mock, "GET", "/v1/models")[0].status == 401
            assert exchange(mock, "GET", "/v1/models", authorization="Bearer secret")[0].status == 200
            assert exchange(mock, "GET", "/v1/models", api_key="secret")[0].status == 200


class TestFaultsOnTheWire:
    def test_cut_stream_is_valid_http(self, mock: MockUpstream) -> None:
        chunks = events_of(dechunked(post(mock, "fault-cut:after=3", stream=True)))
        assert len(chunks) == 3
        assert chunks[-1]["choices"][0]["finish_reason"] is None

    def test_cut_json_is_valid_http(self, mock: MockUpstream) -> None:
        with pytest.raises(json.JSONDecodeError):
            json.loads(dechunked(post(mock, "fault-cut")))

    @pytest.mark.parametrize("is_stream", [True, False])
    def test_cut_mid_event_ends_within_an_event(self, mock: MockUpstream, is_stream: bool) -> None:
        raw = post(mock, "fault-cut-mid-event", stream=is_stream)
        assert not raw.endswith((b"\n\n", b"0\r\n\r\n"))

    @pytest.mark.parametrize("is_stream", [True, False])
    def test_reset_after_the_headers(self, mock: MockUpstream, is_stream: bool) -> None:
        with open_request(mock, "fault-reset", stream=is_stream) as connection:
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            with pytest.raises(ConnectionResetError):
                read_to_end(connection)

    def test_reset_before(self, mock: MockUpstream) -> None:
        with pytest.raises(ConnectionResetError):
            post(mock, "fault-reset-before")

    def test_close_before(self, mock: MockUpstream) -> None:
        assert post(mock, "fault-close-before") == b""

    def test_no_done(self, mock: MockUpstream) -> None:
        last = events_of(dechunked(post(mock, "fault-no-done", stream=True)))[-1]
        assert last["choices"][0]["finish_reason"] == "stop"

    def test_no_finish(self, mock: MockUpstream) -> None:
        *chunks, done = events_of(dechunked(post(mock, "fault-no-finish", stream=True)))
        assert done == "[DONE]"
        assert {chunk["choices"][0]["finish_reason"] for chunk in chunks} == {None}
        assert b'"finish_reason": null' in post(mock, "fault-no-finish")

    def test_truncated_length(self, mock: MockUpstream) -> None:
        with pytest.raises(http.client.IncompleteRead):
            exchange(mock, "POST", "/v1/embeddings", b'{"model": "fault-truncated-length", "input": "a"}')

    def test_empty(self, mock: MockUpstream) -> None:
        assert post(mock, "fault-empty").endswith(b"content-length: 0\r\nconnection: close\r\n\r\n")

    @pytest.mark.parametrize("model", ["fault-slow:delay=0.001", "fault-slow-first:delay=0.001", "fault-one-byte"])
    @pytest.mark.parametrize("is_stream", [True, False])
    def test_slow_answers_are_complete(self, mock: MockUpstream, model: str, is_stream: bool) -> None:
        body = dechunked(post(mock, model, stream=is_stream))
        assert (events_of(body)[-1] == "[DONE]") if is_stream else json.loads(body)

    def test_split_utf8_sends_each_byte_of_a_character_in_a_chunk(self, mock: MockUpstream) -> None:
        raw = post(mock, "fault-split-utf8", stream=True)
        assert "🌍" in dechunked(raw).decode()
        assert b"1\r\n\xf0\r\n1\r\n\x9f\r\n" in raw

    def test_crlf(self, mock: MockUpstream) -> None:
        assert dechunked(post(mock, "fault-crlf", stream=True)).endswith(b"\r\n\r\ndata: [DONE]\r\n\r\n")

    def test_comments(self, mock: MockUpstream) -> None:
        body = dechunked(post(mock, "fault-comments", stream=True))
        assert body.startswith(b": ping\n\nevent: message\nid: 0\nretry: 3000\ndata: {")

    def test_coalesced_is_one_chunk(self, mock: MockUpstream) -> None:
        raw = post(mock, "fault-coalesced", stream=True).split(b"\r\n\r\n", 1)[1]
        size, body = raw.split(b"\r\n", 1)
        assert body[int(size, 16) :] == b"\r\n0\r\n\r\n"

    def test_giant_line(self, mock: MockUpstream) -> None:
        chunks = events_of(dechunked(post(mock, "fault-giant-line", stream=True)))
        assert len(chunks[1]["choices"][0]["delta"]["content"]) == 1 << 20

    def test_gzip(self, mock: MockUpstream) -> None:
        raw = post(mock, "fault-gzip", stream=True)
        assert b"content-encoding: gzip\r\n" in raw
        assert events_of(gzip.decompress(dechunked(raw)))[-1] == "[DONE]"

    def test_close_delimited(self, mock: MockUpstream) -> None:
        header_block, body = post(mock, "fault-close-delimited", stream=True).split(b"\r\n\r\n", 1)
        assert b"chunked" not in header_block
        assert b"content-length" not in header_block
        assert body.endswith(b"data: [DONE]\n\n")

    def test_interim(self, mock: MockUpstream) -> None:
        interim, final, _ = post(mock, "fault-interim").split(b"\r\n\r\n", 2)
        assert interim.startswith(b"HTTP/1.1 103 ")
        assert final.startswith(b"HTTP/1.1 200 ")

    @pytest.mark.parametrize("is_stream", [True, False])
    def test_bad_json(self, mock: MockUpstream, is_stream: bool) -> None:
        raw = post(mock, "fault-bad-json", stream=is_stream)
        with pytest.raises(json.JSONDecodeError):
            events_of(dechunked(raw)) if is_stream else json.loads(raw.split(b"\r\n\r\n", 1)[1])

    def test_bad_json_event(self, mock: MockUpstream) -> None:
        body = dechunked(post(mock, "fault-bad-json-event", stream=True))
        valid = [event for event in body.split(b"\n\n") if b"chatcmpl-broken" not in event]
        assert events_of(b"\n\n".join(valid))[-1] == "[DONE]"
        assert body.count(b"chatcmpl-broken") == 1

    def test_error_in_stream(self, client: openai.OpenAI) -> None:
        stream = client.chat.completions.create(model="fault-error-in-stream", messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError, match="The server had an error"):
            list(stream)

    def test_empty_error(self, mock: MockUpstream) -> None:
        assert all(
            chunk == "[DONE]" or chunk["error"] == {}
            for chunk in events_of(dechunked(post(mock, "fault-empty-error", stream=True)))
        )

    def test_empty_choices_first(self, mock: MockUpstream) -> None:
        first = events_of(dechunked(post(mock, "fault-empty-choices-first", stream=True)))[0]
        assert first["choices"] == []
        assert "prompt_filter_results" in first

    def test_usage_in_last_chunk(self, mock: MockUpstream) -> None:
        last = events_of(dechunked(post(mock, "fault-usage-in-last-chunk", stream=True)))[-2]
        assert last["choices"][0]["finish_reason"] == "stop"
        assert last["usage"]["total_tokens"] == 10

    def test_no_usage(self, mock: MockUpstream) -> None:
        raw = post(mock, "fault-no-usage", stream=True, stream_options={"include_usage": True})
        assert b"usage" not in dechunked(raw).replace(b"fault-no-usage", b"")
        assert b'"usage"' not in post(mock, "fault-no-usage")


class TestRecorder:
    @pytest.mark.parametrize("model", ["fault-hang", "fault-hang-headers", "fault-stall", "mock-model:delay=60"])
    @pytest.mark.parametrize("is_reset", [True, False])
    def test_a_client_disconnect_is_counted(self, mock: MockUpstream, model: str, is_reset: bool) -> None:
        connection = open_request(mock, model, stream=True)
        mock.wait_until(lambda stats: stats["requests_open"] == 1)
        if is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        stats = mock.wait_until(lambda stats: stats["requests_open"] == 0)
        assert (stats["requests_aborted"], stats["connections_open"]) == (1, 0)
        assert [(record["aborted"], record["complete"]) for record in mock.requests()] == [(True, False)]

    @pytest.mark.parametrize("is_reset", [True, False])
    def test_an_incomplete_upload_is_counted_as_aborted(self, mock: MockUpstream, is_reset: bool) -> None:
        with socket.create_connection(mock.address, timeout=5) as connection:
            connection.sendall(b"POST /v1/files HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 10\r\n\r\nhalf")
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
            if is_reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        mock.wait_until(lambda stats: stats["requests_aborted"] == 1)
        assert mock.requests()[0]["body"] == "half"

    def test_requests_are_recorded(self, mock: MockUpstream) -> None:
        post(mock, "mock-model", "/v1/chat/completions?x=1")
        (record,) = mock.requests()
        assert (record["method"], record["path"], record["query"]) == ("POST", "/v1/chat/completions", "x=1")
        assert (record["headers"]["host"], json.loads(record["body"])["model"]) == ("mock", "mock-model")
        assert (record["aborted"], record["complete"]) == (False, True)
        assert mock.stats()["models"] == {"mock-model": 1}

    def test_reading_the_counters_is_not_counted(self, mock: MockUpstream) -> None:
        stats = [mock.stats() for _ in range(3)][-1]
        assert (stats["connections_total"], stats["connections_open"], stats["requests_total"]) == (0, 0, 0)

    def test_connections_are_kept_alive(self, mock: MockUpstream) -> None:
        connection = http.client.HTTPConnection(*mock.address)
        for _ in range(3):
            connection.request("GET", "/v1/models")
            connection.getresponse().read()
        stats = mock.stats()
        connection.close()
        assert (stats["requests_total"], stats["connections_total"], stats["connections_open"]) == (3, 1, 1)

    def test_many_streams_at_once(self, mock: MockUpstream) -> None:
        connections = [open_request(mock, "mock-model:chunks=10,delay=0.03", stream=True) for _ in range(300)]
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(read_to_end, connections))
        for connection in connections:
            connection.close()
        assert all(answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") for answer in answers)
        assert mock.wait_until(lambda stats: stats["connections_open"] == 0)["requests_aborted"] == 0


def test_importing_the_package_imports_neither_gevent_nor_flask() -> None:
    script = (
        "import sys, openai_compat.tools.mock_upstream; sys.exit('gevent' in sys.modules or 'flask' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_an_address_in_use_exits_with_1() -> None:
    with MockUpstream() as mock:
        command = [sys.executable, "-m", "openai_compat.tools.mock_upstream", "--port", str(mock.address[1])]
        second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr.startswith("mock upstream cannot listen on 127.0.0.1:")


def test_sigterm_exits_with_0_during_a_request() -> None:
    with MockUpstream() as mock:
        connection = open_request(mock, "fault-hang")
        mock.wait_until(lambda stats: stats["requests_open"] == 1)
    connection.close()
    assert mock.process.returncode == 0


def test_a_response_through_the_official_client(client: openai.OpenAI) -> None:
    response = client.responses.create(model="mock-model", input="hello there")
    assert response.output_text == "You said: hello there"
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


def test_a_streamed_response_through_the_strict_helper_of_the_official_client(client: openai.OpenAI) -> None:
    with client.responses.stream(model="mock-model", input="hello there") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == "You said: hello there"
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_a_streamed_response_calls_a_function(client: openai.OpenAI) -> None:
    function: Any = {"type": "function", **TOOL["function"], "strict": False}  # type: ignore[dict-item]
    with client.responses.stream(model="mock-model:calls=2", input="Oslo", tools=[function]) as stream:
        final = stream.get_final_response()
    calls = [item for item in final.output if item.type == "function_call"]
    assert [json.loads(call.arguments) for call in calls] == [{"city": "Oslo", "days": 1}] * 2
    result: Any = {"type": "function_call_output", "call_id": calls[0].call_id, "output": "rain"}
    answer = client.responses.create(model="mock-model", input=[*final.output, result], tools=[function])  # type: ignore[list-item]
    assert answer.output[0].type == "message"


def test_a_response_that_reaches_its_limit_is_incomplete(client: openai.OpenAI) -> None:
    response = client.responses.create(model="mock-model", input="one two three", max_output_tokens=2)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


def test_faults_of_streamed_responses(mock: MockUpstream) -> None:
    def stream(model: str) -> bytes:
        return post(mock, model, "/v1/responses", input="hello there", stream=True)

    assert stream("mock-model").count(b"event: response.completed\n") == 1
    assert b"[DONE]" not in stream("mock-model")
    assert b"response.completed" not in stream("fault-cut")
    assert b"response.completed" not in stream("fault-no-done")
    failed = stream("fault-error-in-stream")
    assert failed.index(b'"type":"error"') < failed.index(b'"type":"response.failed"')


def test_a_server_without_responses_still_answers_chats(mock: MockUpstream) -> None:
    assert post(mock, "fault-no-responses", "/v1/responses", input="x").startswith(b"HTTP/1.1 404")
    assert post(mock, "fault-no-responses").startswith(b"HTTP/1.1 200")
