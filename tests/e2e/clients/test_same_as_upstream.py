"""Responses of a server with `OPENAI_BASE_URL`, which have the same bytes as those of the upstream.

Each call is made twice, to the mock upstream and through the server.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.e2e.clients.raw_http import RawAnswer, exchange, post
from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
HELLO = [{"role": "user", "content": "hello there, 日本 🌍"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"city": {"type": "string"}}}}}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
SECRETS = {"set-cookie", "x-internal-secret"}
FRAMING = {"server", "date", "connection", "transfer-encoding", "content-length"}
"""Headers that every HTTP server adds."""


def chat(model: str = "mock-model", **more: Any) -> tuple[str, dict[str, Any]]:
    return CHAT, {"model": model, "messages": HELLO, **more}


COMPLETE = {
    "chat": chat(),
    "choices": chat(n=3),
    "tools": chat("mock-model:calls=2", tools=[TOOL]),
    "tool result": (
        CHAT,
        {"model": "mock-model", "messages": [*HELLO, {"role": "tool", "tool_call_id": "1", "content": "x"}]},
    ),
    "unknown fields": chat(tomorrow={"deep": [1, {"er": None}]}, reasoning_effort="unheard-of"),
    "explicit nulls": chat(temperature=None, tools=None, stream=None, stop=None, stream_options=None),
    "odd values": chat(max_tokens=0, temperature=9.5),
    "parts": chat(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}]}]),
    "long": chat("mock-model:chunks=5000,size=40"),
    "any name": chat("gpt-4o"),
    "split characters": chat("fault-split-utf8"),
    "until the connection closes": chat("fault-close-delimited"),
    "usage missing": chat("fault-no-usage"),
    "no finish reason": chat("fault-no-finish"),
    "completion": (COMPLETIONS, {"model": "mock-model", "prompt": "one two"}),
    "completion, choices": (COMPLETIONS, {"model": "mock-model", "prompt": ["one", "two"], "n": 2, "best_of": 0}),
    "completion, token ids": (COMPLETIONS, {"model": "m", "prompt": [[1, 2], [3]], "echo": True, "logprobs": 5}),
    "embedding": (EMBEDDINGS, {"model": "mock-embedding", "input": "one"}),
    "embedding, base64": (EMBEDDINGS, {"model": "m", "input": ["one", "two"], "encoding_format": "base64"}),
    "embedding, dimensions": (EMBEDDINGS, {"model": "m", "input": [[1, 2]], "dimensions": 8}),
}  # fmt: skip

STREAMS = {
    "chat": chat(stream=True),
    "usage requested": chat(**USAGE),
    "usage not wanted": chat(stream=True, stream_options={"include_usage": False}),
    "null options": chat(stream=True, stream_options=None),
    "choices": chat(n=3, **USAGE),
    "tools": chat("mock-model:calls=2", tools=[TOOL], stream=True),
    "long": chat("mock-model:chunks=500", stream=True),
    "completion": (COMPLETIONS, {"model": "mock-model", "prompt": ["one two", "three"], "n": 2, "stream": True}),
    "completion, usage": (COMPLETIONS, {"model": "mock-model", "prompt": "one two", **USAGE}),
    "a write for each byte": chat("fault-one-byte", stream=True),
    "characters split": chat("fault-split-utf8", stream=True),
    "all in one write": chat("fault-coalesced", stream=True),
    "CR LF": chat("fault-crlf", stream=True),
    "CR LF, usage": chat("fault-crlf", **USAGE),
    "comments and other fields": chat("fault-comments", **USAGE),
    "one giant event": chat("fault-giant-line", stream=True),
    "until the connection closes": chat("fault-close-delimited", stream=True),
    "no usage": chat("fault-no-usage", **USAGE),
    "usage beside the finish": chat("fault-usage-in-last-chunk", **USAGE),
    "Azure's first chunk": chat("fault-empty-choices-first", stream=True),
    "an error in the stream": chat("fault-error-in-stream:after=3", stream=True),
    "no finish reason": chat("fault-no-finish", stream=True),
}

ERRORS = {
    **{str(code): chat(f"fault-status:code={code}") for code in (400, 401, 403, 404, 408, 409, 413, 422, 429)},
    **{f"{code}, stream": chat(f"fault-status:code={code}", stream=True) for code in (400, 401, 404, 429, 500)},
    **{str(code): chat(f"fault-status:code={code}") for code in (500, 501, 502, 503, 504, 529)},
    "retry after": chat("fault-status:code=429,retry_after=7"),
    "retry after ms": chat("fault-status:code=503,retry_after_ms=1500,should_retry=true"),
    "do not retry": chat("fault-status:code=500,should_retry=false"),
    "quota": chat("fault-quota"),
    "context length": chat("fault-context-length"),
    "content filter": chat("fault-content-filter"),
    "a rejected parameter": chat("fault-reject-max-tokens", max_tokens=3),
    "unknown model": chat("fault-unheard-of"),
    "embedding": (EMBEDDINGS, {"model": "fault-status:code=429", "input": "one"}),
    "completion": (COMPLETIONS, {"model": "fault-status:code=429", "prompt": "one"}),
}


def ask_both(mock: MockUpstream, proxy: LiveServer, path: str, payload: Any) -> tuple[RawAnswer, RawAnswer]:
    return post(mock.url, path, payload), post(proxy.url, path, payload)


def assert_same(direct: RawAnswer, proxied: RawAnswer) -> None:
    assert proxied.status == direct.status
    assert proxied.body == direct.body
    assert _shown_headers(proxied).keys() >= _shown_headers(direct).keys()
    for name, value in _shown_headers(direct).items():
        if name == "x-request-id":
            assert re.fullmatch("req_[0-9a-f]{32}", proxied.headers[name])
        else:
            assert proxied.headers[name] == value, name
    assert not SECRETS & proxied.headers.keys()


def _shown_headers(answer: RawAnswer) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in FRAMING | SECRETS}


class TestSameBytes:
    @pytest.mark.parametrize(("path", "payload"), COMPLETE.values(), ids=COMPLETE)
    def test_complete_answers(self, mock: MockUpstream, proxy: LiveServer, path: str, payload: Any) -> None:
        direct, proxied = ask_both(mock, proxy, path, payload)
        assert direct.status == 200
        assert_same(direct, proxied)
        assert int(proxied.headers["content-length"]) == len(direct.body)
        assert proxied.headers.keys() - direct.headers.keys() <= {"server", "date", "connection", "content-length"}

    @pytest.mark.parametrize(("path", "payload"), STREAMS.values(), ids=STREAMS)
    def test_streams(self, mock: MockUpstream, proxy: LiveServer, path: str, payload: Any) -> None:
        direct, proxied = ask_both(mock, proxy, path, payload)
        assert direct.status == 200
        assert_same(direct, proxied)
        assert proxied.headers["cache-control"] == "no-cache, no-transform"
        assert proxied.headers["x-accel-buffering"] == "no"
        assert "content-length" not in proxied.headers

    @pytest.mark.parametrize(("path", "payload"), ERRORS.values(), ids=ERRORS)
    def test_errors(self, mock: MockUpstream, proxy: LiveServer, path: str, payload: Any) -> None:
        direct, proxied = ask_both(mock, proxy, path, payload)
        assert direct.status >= 400
        assert_same(direct, proxied)

    def test_models(self, mock: MockUpstream, proxy: LiveServer) -> None:
        for path in ("/v1/models/mock-model", "/v1/models/mock/model-with-slash", "/v1/models/no-such-model"):
            assert_same(exchange(mock.url, "GET", path), exchange(proxy.url, "GET", path))
        escaped = "/v1/models/mock%2Fmodel-with-slash"
        assert_same(exchange(mock.url, "GET", escaped), exchange(proxy.url, "GET", escaped))

    def test_list_of_models(self, mock: MockUpstream, proxy: LiveServer) -> None:
        """The server builds the list, so that only its content is the same."""
        direct, proxied = exchange(mock.url, "GET", "/v1/models"), exchange(proxy.url, "GET", "/v1/models")
        assert (proxied.status, proxied.json()) == (direct.status, direct.json())

    @pytest.mark.parametrize("stream", [False, True])
    def test_azure(self, mock: MockUpstream, proxy: LiveServer, stream: bool) -> None:
        path = "/openai/deployments/mock-model/chat/completions?api-version=2024-10-21"
        direct, proxied = ask_both(mock, proxy, path, {"messages": HELLO, "stream": stream})
        assert direct.status == 200
        assert_same(direct, proxied)


class TestCorrections:
    """Responses that the server corrects."""

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("name", ["fault-gzip", "fault-interim"])
    def test_compression_and_interim_responses_are_removed(
        self, mock: MockUpstream, proxy: LiveServer, name: str, stream: bool
    ) -> None:
        plain = post(mock.url, *chat("plain", stream=stream))
        proxied = post(proxy.url, *chat(name, stream=stream))
        assert proxied.status == 200
        assert proxied.body == plain.body.replace(b"plain", name.encode())
        assert not {"content-encoding", "link"} & proxied.headers.keys()

    def test_usage_that_was_not_requested_is_removed(self, mock: MockUpstream, proxy: LiveServer) -> None:
        direct, proxied = ask_both(mock, proxy, *chat("fault-usage-in-last-chunk", stream=True))
        assert b'"usage":{' in direct.body
        assert b'"usage"' not in proxied.body
        assert proxied.body == re.sub(rb',"usage":\{.*\}\}(?=\}\n)', b"", direct.body)

    def test_a_missing_done_is_added(self, mock: MockUpstream, proxy: LiveServer) -> None:
        direct, proxied = ask_both(mock, proxy, *chat("fault-no-done", stream=True))
        assert proxied.body == direct.body + b"data: [DONE]\n\n"

    def test_an_empty_error_is_removed(self, mock: MockUpstream, proxy: LiveServer) -> None:
        direct, proxied = ask_both(mock, proxy, *chat("fault-empty-error", stream=True))
        assert proxied.body == direct.body.replace(b',"error":{}', b"")

    @pytest.mark.parametrize("name", ["fault-html-error", "fault-databricks-error", "fault-vllm-error"])
    def test_errors_of_other_forms_get_openais_form(self, mock: MockUpstream, proxy: LiveServer, name: str) -> None:
        direct, proxied = ask_both(mock, proxy, *chat(name))
        assert proxied.status == direct.status
        error = proxied.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert "<" not in error["message"]


class TestSameRequests:
    """The upstream gets the requests that the client sent."""

    def test_the_body_is_forwarded_byte_for_byte(self, mock: MockUpstream, proxy: LiveServer) -> None:
        body = b'{ "messages" : [{"role":"user","content":"\\u00e9 \xc3\xa9"}] ,\n\t"model":"mock-model", "x": 1.50 }'
        exchange(proxy.url, "POST", CHAT, body)
        assert mock.requests()[-1]["body"].encode() == body

    def test_only_usage_is_added_to_a_stream(self, mock: MockUpstream, proxy: LiveServer) -> None:
        body = b'{"model": "mock-model", "stream": true, "messages": [{"role": "user", "content": "a"}] }'
        exchange(proxy.url, "POST", CHAT, body)
        assert json.loads(mock.requests()[-1]["body"]) == {
            **json.loads(body),
            "stream_options": {"include_usage": True},
        }

    def test_headers(self, mock: MockUpstream, proxy: LiveServer) -> None:
        forwarded = {
            "authorization": "Bearer sk-of-the-caller",
            "openai-organization": "org-1",
            "openai-project": "proj-1",
            "x-stainless-retry-count": "1",
            "idempotency-key": "once",
            "x-client-request-id": "client-1",
            "user-agent": "OpenAI/Python",
        }
        dropped = {"cookie": "session=1", "x-forwarded-for": "10.0.0.1", "x-internal": "1", "referer": "http://me/"}
        post(proxy.url, *chat(), headers={**forwarded, **dropped})
        seen = mock.requests()[-1]["headers"]
        assert {name: seen.get(name) for name in forwarded} == forwarded
        assert not dropped.keys() & seen.keys()
        assert seen["host"] == mock.url.removeprefix("http://")

    def test_azure_key_becomes_a_bearer(self, mock: MockUpstream, proxy: LiveServer) -> None:
        path = "/openai/deployments/mock-model/chat/completions?api-version=2024-10-21"
        body = json.dumps({"messages": HELLO}).encode()
        headers = {"api-key": "azure-key", "authorization": ""}
        exchange(proxy.url, "POST", path, body, headers)
        seen = mock.requests()[-1]
        assert seen["headers"]["authorization"] == "Bearer azure-key"
        assert json.loads(seen["body"]) == {"model": "mock-model", "messages": HELLO}
