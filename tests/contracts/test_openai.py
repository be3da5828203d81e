"""The contract of the openai backend, with the mock upstream on real sockets, and its own tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from openai_compat.backends.http.client import UpstreamClient
from openai_compat.backends.http.messages import UpstreamRequest
from openai_compat.backends.openai.backend import (
    MAX_REMEMBERED,
    RESPONSES_MISSING_SECONDS,
    OpenAIBackend,
    OpenAIOptions,
)
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import (
    UpstreamAuthenticationError,
    UpstreamConnectionError,
    UpstreamError,
    UpstreamInvalidResponseError,
    UpstreamStatusError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
)
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.streams import close_stream
from openai_compat.core.timeouts import Timeouts
from openai_compat.core.types import CallContext, ChatRequest
from tests.contracts.backend_contract import (
    UNICODE,
    ChatContract,
    assert_well_formed,
    collect,
    finish_reasons,
    last_usage,
    text_of,
)
from tests.support.fake_http_client import ScriptedClient, ScriptedResponse
from tests.support.mock_upstream import MockUpstream

UNSUPPORTED_BY_THE_MOCK = frozenset({"stop", "logprobs", "top_logprobs", "response_format"})
"""Parameters that the upstream has to support. `test_parameters_are_sent_unchanged` checks that it receives them."""


@pytest.fixture(scope="module")
def running() -> Iterator[MockUpstream]:
    with MockUpstream() as upstream:
        yield upstream


@pytest.fixture
def mock(running: MockUpstream) -> MockUpstream:
    running.reset()
    return running


class BackendFactory:
    """A factory of backends for the mock upstream, with one HTTP client."""

    def __init__(self, mock: MockUpstream) -> None:
        self._mock = mock
        self._settings = Settings()
        self.http_client = UpstreamClient(self._settings)

    def __call__(self, upstream_model: str | None = None, *, stream_usage: bool = True, **entry: Any) -> OpenAIBackend:
        """Return a backend that sends `upstream_model`, or the request's model if it is None."""
        fields = {"base_url": self._mock.base_url, "upstream_model": upstream_model, **entry}
        resources = BackendResources(self._settings, self.http_client)
        return OpenAIBackend(ModelConfig("contract-model", "openai", **fields), OpenAIOptions(stream_usage), resources)


@pytest.fixture
def make(mock: MockUpstream) -> Iterator[BackendFactory]:
    factory = BackendFactory(mock)
    yield factory
    factory.http_client.close()


def ask(backend: OpenAIBackend, text: str = "hello there", *, stream: bool = True, **parameters: Any) -> list[Any]:
    request = ChatRequest("contract-model", [{"role": "user", "content": text}], parameters, is_streamed=stream)
    return collect(backend.chat(request, CallContext("contract")))


class TestOpenAIChat(ChatContract):
    upstream: ClassVar[MockUpstream]

    @pytest.fixture(autouse=True)
    def _upstream(self, mock: MockUpstream) -> None:
        type(self).upstream = mock

    @pytest.fixture
    def backend(self, make: BackendFactory) -> OpenAIBackend:
        return make()

    @pytest.fixture
    def slow_backend(self, make: BackendFactory) -> OpenAIBackend:
        return make("fault-hang-headers")

    def running_work(self, backend: OpenAIBackend) -> int:
        return int(self.upstream.stats()["requests_open"])

    def supported_parameters(self, backend: Any) -> frozenset[str]:
        return super().supported_parameters(backend) - UNSUPPORTED_BY_THE_MOCK


class TestOpenAIChatWithoutUsage(TestOpenAIChat):
    """Without usage from the upstream (`stream_usage: false`) the service counts tokens."""

    has_usage = False

    @pytest.fixture
    def backend(self, make: BackendFactory) -> OpenAIBackend:
        return make(stream_usage=False)


class TestRequests:
    def test_parameters_are_sent_unchanged(self, make: BackendFactory, mock: MockUpstream) -> None:
        parameters = {"stop": ["x"], "logprobs": True, "top_logprobs": 2, "response_format": {"type": "json_object"},
                      "temperature": 0.5, "unknown": {"a": None}}  # fmt: skip
        ask(make("their-name"), **parameters)
        assert json.loads(mock.requests()[-1]["body"]) == {
            "model": "their-name",
            "messages": [{"role": "user", "content": "hello there"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            **parameters,
        }

    def test_the_configured_headers_and_key_are_sent(self, make: BackendFactory, mock: MockUpstream) -> None:
        ask(make(api_key="sk-1", headers={"x-team": "blue"}))
        seen = mock.requests()[-1]["headers"]
        assert (seen["authorization"], seen["x-team"]) == ("Bearer sk-1", "blue")

    def test_twenty_callers_get_their_own_answers(self, make: BackendFactory, mock: MockUpstream) -> None:
        backend = make()
        texts = [f"I am caller {number} of twenty" for number in range(20)]
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda text: text_of(ask(backend, text), 0), texts))
        assert answers == [f"You said: {text}" for text in texts]


@pytest.mark.parametrize("stream", [False, True])
class TestAnswers:
    @pytest.mark.parametrize(
        "name",
        [
            "fault-split-utf8",
            "fault-one-byte",
            "fault-crlf",
            "fault-comments",
            "fault-coalesced",
            "fault-gzip",
            "fault-close-delimited",
            "fault-interim",
            "fault-empty-error",
            "fault-empty-choices-first",
            "fault-usage-in-last-chunk",
        ],
    )
    def test_unusual_framing_does_not_change_the_answer(self, make: BackendFactory, name: str, stream: bool) -> None:
        deltas = ask(make(name), UNICODE, stream=stream)
        assert_well_formed(deltas, choices=1)
        assert text_of(deltas, 0).startswith(f"You said: {UNICODE}")
        assert last_usage(deltas).completion_tokens > 0

    @pytest.mark.parametrize("name", ["fault-databricks", "fault-reject-stream-options"])
    def test_an_upstream_that_rejects_stream_options_is_called_without_them(
        self, make: BackendFactory, name: str, stream: bool
    ) -> None:
        """Hide the rejection from the client, since the backend added the parameter itself."""
        deltas = ask(make(name), stream=stream)
        assert text_of(deltas, 0) == "You said: hello there"
        assert finish_reasons(deltas) == {0: "stop"}

    def test_stream_options_are_sent_once_for_each_model_that_rejects_them(
        self, make: BackendFactory, mock: MockUpstream, stream: bool
    ) -> None:
        backend = make("fault-reject-stream-options")
        for _ in range(3):
            ask(backend, stream=stream)
        assert mock.stats()["requests_total"] == (4 if stream else 3)
        assert backend.may_request_usage("another model")
        assert backend.may_request_usage("contract-model") is not stream

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("fault-truncated-length:chunks=50", UpstreamTruncatedError),
            ("fault-bad-json", UpstreamInvalidResponseError),
            ("fault-reset-before", UpstreamConnectionError),
            ("fault-close-before", UpstreamConnectionError),
            ("fault-status:code=503", UpstreamStatusError),
            ("fault-html-error", UpstreamStatusError),
            ("fault-databricks-error", UpstreamStatusError),
        ],
    )
    def test_failures_raise_the_matching_error(
        self, make: BackendFactory, name: str, error: type[UpstreamError], stream: bool
    ) -> None:
        if stream and name.startswith("fault-truncated-length"):
            pytest.skip("a stream with [DONE] is complete, even if it is shorter than its Content-Length")
        with pytest.raises(error) as caught:
            ask(make(name), stream=stream)
        assert type(caught.value) is error
        assert "<html" not in caught.value.message

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_refused_key_of_the_server_is_not_reported_as_the_callers(
        self, make: BackendFactory, status: int, stream: bool
    ) -> None:
        with pytest.raises(UpstreamAuthenticationError):
            ask(make(f"fault-status:code={status}", api_key="sk-1"), stream=stream)
        with pytest.raises(UpstreamStatusError) as caught:
            ask(make(f"fault-status:code={status}"), stream=stream)
        assert caught.value.upstream_status == status

    @pytest.mark.parametrize(("named", "key"), [(401, "sk-1"), ("invalid_api_key", "sk-1"), (401, None)])
    def test_a_key_refused_in_a_response_of_status_200(self, named: Any, key: str | None, stream: bool) -> None:
        body = json.dumps({"error": {"message": "no", "type": "t", "code": named}}).encode()
        response = ScriptedResponse(200, {"content-type": "text/event-stream" if stream else "application/json"}, [
            b"data: %b\n\n" % body if stream else body
        ])  # fmt: skip
        resources = BackendResources(Settings(), ScriptedClient(response))  # type: ignore[arg-type]
        entry = ModelConfig("contract-model", "openai", "http://upstream.test/v1", api_key=key)
        with pytest.raises(UpstreamAuthenticationError if key else UpstreamStatusError):
            ask(OpenAIBackend(entry, OpenAIOptions(), resources), stream=stream)
        assert response.ending == "closed"

    def test_an_upstream_error_keeps_its_status_code_and_retry_header(self, make: BackendFactory, stream: bool) -> None:
        with pytest.raises(UpstreamStatusError) as caught:
            ask(make("fault-status:code=429,retry_after=7"), stream=stream)
        error = caught.value
        assert (error.upstream_status, error.code, error.headers) == (429, "rate_limit_exceeded", {"retry-after": "7"})

    def test_a_stalled_upstream_is_a_timeout(self, make: BackendFactory, mock: MockUpstream, stream: bool) -> None:
        with pytest.raises(UpstreamTimeoutError):
            ask(make("fault-hang", timeouts=Timeouts(first_byte=0.1)), stream=stream)
        with pytest.raises(UpstreamTimeoutError):
            ask(make("fault-hang-headers", timeouts=Timeouts(idle=0.1)), stream=stream)
        mock.wait_until(lambda stats: stats["requests_open"] == 0)


def test_an_error_with_another_cause_does_not_disable_usage(make: BackendFactory) -> None:
    """Keep usage for all callers after one caller's invalid request."""
    backend = make("fault-status:code=400")
    with pytest.raises(UpstreamStatusError):
        ask(backend)
    assert backend.may_request_usage("contract-model")


def test_a_missing_responses_endpoint_is_remembered_for_a_while(
    make: BackendFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("openai_compat.backends.openai.backend.monotonic", lambda: now)
    backend = make()
    assert backend.may_forward_responses()
    assert backend.mark_responses_missing()
    now += RESPONSES_MISSING_SECONDS - 1
    assert not backend.may_forward_responses()
    now += 2
    assert backend.may_forward_responses()


def test_the_number_of_remembered_models_is_limited(make: BackendFactory) -> None:
    backend = make()
    for number in range(3 * MAX_REMEMBERED):
        backend.mark_usage_unsupported(f"model {number}")
    assert not backend.may_request_usage(f"model {3 * MAX_REMEMBERED - 1}")
    assert sum(not backend.may_request_usage(f"model {number}") for number in range(5000)) <= MAX_REMEMBERED


class TestStreams:
    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("fault-cut", UpstreamTruncatedError),
            ("fault-cut-mid-event", UpstreamTruncatedError),
            ("fault-reset", UpstreamTruncatedError),
            ("fault-error-in-stream", UpstreamStatusError),
        ],
    )
    def test_a_failure_in_the_stream_comes_after_the_deltas_before_it(
        self, make: BackendFactory, name: str, error: type[UpstreamError]
    ) -> None:
        messages = [{"role": "user", "content": "hello there"}]
        stream = make(name).chat(ChatRequest("contract-model", messages, is_streamed=True), CallContext("contract"))
        deltas: list[Any] = []
        with pytest.raises(error):
            deltas.extend(stream)
        assert "You said: hello there".startswith(text_of(collect(iter(deltas)), 0))
        assert text_of(collect(iter(deltas)), 0)

    def test_a_broken_event_is_skipped(self, make: BackendFactory) -> None:
        messages = [{"role": "user", "content": "hello there"}]
        request = ChatRequest("contract-model", messages, is_streamed=True)
        deltas = collect(make("fault-bad-json-event").chat(request, CallContext("contract")))
        assert text_of(deltas, 0) == "You said: hello there"

    def test_a_complete_answer_without_done_is_ended(self, make: BackendFactory) -> None:
        messages = [{"role": "user", "content": "hello there"}]
        request = ChatRequest("contract-model", messages, is_streamed=True)
        deltas = collect(make("fault-no-end").chat(request, CallContext("contract")))
        assert (text_of(deltas, 0), deltas[-1].finish_reason) == ("You said: hello there", "stop")

    def test_a_hundred_streams_closed_at_any_point_end_their_upstream_requests(
        self, make: BackendFactory, mock: MockUpstream
    ) -> None:
        backend = make("mock-model:chunks=30")
        request = ChatRequest("contract-model", [{"role": "user", "content": "a"}], is_streamed=True)
        for number in range(100):
            stream = backend.chat(request, CallContext("contract"))
            for _ in range(number % 7):
                next(stream, None)
            close_stream(stream)
        mock.wait_until(lambda stats: stats["requests_open"] == 0)
        assert ask(backend)


class TestForwarding:
    def test_requests_and_responses_are_passed_on_as_bytes(self, make: BackendFactory, mock: MockUpstream) -> None:
        body = b'{"model" : "mock-model", "messages": [{"role": "user", "content": "hi"}]}'
        headers = {"Content-Type": "application/json"}
        call = UpstreamRequest("POST", "chat/completions?trace=1", headers, body)
        response = make().forward(call, CallContext("contract"))
        assert response.status == 200
        assert json.loads(response.read())["choices"][0]["message"]["content"] == "You said: hi"
        response.close()
        seen = mock.requests()[-1]
        assert (seen["path"], seen["query"], seen["body"]) == ("/v1/chat/completions", "trace=1", body.decode())
