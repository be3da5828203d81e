"""The openai backend keeps the contract with the mock upstream behind it, on real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from openai_compat.backends.http.client import UpstreamClient
from openai_compat.backends.http.messages import UpstreamRequest
from openai_compat.backends.openai.backend import MAX_REMEMBERED, OpenAIBackend, OpenAIOptions
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
from openai_compat.core.settings import ModelConfig, Settings, Timeouts
from openai_compat.core.streams import close_stream
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

NOT_KEPT_BY_THE_MOCK = frozenset({"stop", "logprobs", "top_logprobs", "response_format"})
"""They are the peer's to keep: `test_parameters_go_out_as_they_are` sees that the peer gets them."""


@pytest.fixture(scope="module")
def running() -> Iterator[MockUpstream]:
    with MockUpstream() as upstream:
        yield upstream


@pytest.fixture
def mock(running: MockUpstream) -> MockUpstream:
    running.reset()
    return running


class MakesBackends:
    """Makes backends in front of the mock upstream; closes their connections after the test."""

    def __init__(self, mock: MockUpstream) -> None:
        self._mock = mock
        self._settings = Settings()
        self.forwarder = UpstreamClient(self._settings)

    def __call__(self, upstream_model: str | None = None, *, stream_usage: bool = True, **entry: Any) -> OpenAIBackend:
        """One whose models are all `upstream_model`, or those that are asked for by name."""
        fields = {"base_url": self._mock.base_url, "upstream_model": upstream_model, **entry}
        resources = BackendResources(self._settings, self.forwarder)
        return OpenAIBackend(ModelConfig("contract-model", "openai", **fields), OpenAIOptions(stream_usage), resources)


@pytest.fixture
def make(mock: MockUpstream) -> Iterator[MakesBackends]:
    makes = MakesBackends(mock)
    yield makes
    makes.forwarder.close()


def ask(backend: OpenAIBackend, text: str = "hello there", *, stream: bool = True, **parameters: Any) -> list[Any]:
    request = ChatRequest("contract-model", [{"role": "user", "content": text}], parameters, is_streamed=stream)
    return collect(backend.chat(request, CallContext("contract")))


class TestOpenAIChat(ChatContract):
    upstream: ClassVar[MockUpstream]

    @pytest.fixture(autouse=True)
    def _upstream(self, mock: MockUpstream) -> None:
        type(self).upstream = mock

    @pytest.fixture
    def backend(self, make: MakesBackends) -> OpenAIBackend:
        return make()

    @pytest.fixture
    def slow_backend(self, make: MakesBackends) -> OpenAIBackend:
        return make("fault-hang-headers")

    def running_work(self, backend: OpenAIBackend) -> int:
        return int(self.upstream.stats()["requests_open"])

    def promises(self, backend: Any) -> frozenset[str]:
        return super().promises(backend) - NOT_KEPT_BY_THE_MOCK


class TestOpenAIChatWithoutUsage(TestOpenAIChat):
    """`stream_usage: false`: the upstream is not asked, and the service counts."""

    has_usage = False

    @pytest.fixture
    def backend(self, make: MakesBackends) -> OpenAIBackend:
        return make(stream_usage=False)


class TestRequests:
    def test_parameters_go_out_as_they_are(self, make: MakesBackends, mock: MockUpstream) -> None:
        parameters = {"stop": ["x"], "logprobs": True, "top_logprobs": 2, "response_format": {"type": "json_object"},
                      "temperature": 0.5, "unheard-of": {"a": None}}  # fmt: skip
        ask(make("their-name"), **parameters)
        assert json.loads(mock.requests()[-1]["body"]) == {
            "model": "their-name",
            "messages": [{"role": "user", "content": "hello there"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            **parameters,
        }

    def test_the_entrys_headers_and_key_go_out(self, make: MakesBackends, mock: MockUpstream) -> None:
        ask(make(api_key="sk-1", headers={"x-team": "blue"}))
        seen = mock.requests()[-1]["headers"]
        assert (seen["authorization"], seen["x-team"]) == ("Bearer sk-1", "blue")

    def test_twenty_callers_get_their_own_answers(self, make: MakesBackends, mock: MockUpstream) -> None:
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
    def test_whatever_the_bytes_are_like(self, make: MakesBackends, name: str, stream: bool) -> None:
        deltas = ask(make(name), UNICODE, stream=stream)
        assert_well_formed(deltas, choices=1)
        assert text_of(deltas, 0).startswith(f"You said: {UNICODE}")
        assert last_usage(deltas).completion_tokens > 0

    @pytest.mark.parametrize("name", ["fault-databricks", "fault-reject-stream-options"])
    def test_an_upstream_that_refuses_stream_options(self, make: MakesBackends, name: str, stream: bool) -> None:
        """It was the backend that asked for usage, so that it has to do without."""
        deltas = ask(make(name), stream=stream)
        assert text_of(deltas, 0) == "You said: hello there"
        assert finish_reasons(deltas) == {0: "stop"}

    def test_it_is_asked_once_a_model(self, make: MakesBackends, mock: MockUpstream, stream: bool) -> None:
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
    def test_failures_have_a_name(
        self, make: MakesBackends, name: str, error: type[UpstreamError], stream: bool
    ) -> None:
        if stream and name.startswith("fault-truncated-length"):
            pytest.skip("a stream that says [DONE] is whole, whatever its length was said to be")
        with pytest.raises(error) as caught:
            ask(make(name), stream=stream)
        assert type(caught.value) is error
        assert "<html" not in caught.value.message

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_refused_key_of_the_entry_is_not_the_callers(
        self, make: MakesBackends, status: int, stream: bool
    ) -> None:
        with pytest.raises(UpstreamAuthenticationError):
            ask(make(f"fault-status:code={status}", api_key="sk-1"), stream=stream)
        with pytest.raises(UpstreamStatusError) as caught:
            ask(make(f"fault-status:code={status}"), stream=stream)
        assert caught.value.upstream_status == status

    @pytest.mark.parametrize(("named", "key"), [(401, "sk-1"), ("invalid_api_key", "sk-1"), (401, None)])
    def test_a_key_refused_with_status_200_is_judged_alike(self, named: Any, key: str | None, stream: bool) -> None:
        body = json.dumps({"error": {"message": "no", "type": "t", "code": named}}).encode()
        reply = ScriptedResponse(200, {"content-type": "text/event-stream" if stream else "application/json"}, [
            b"data: %b\n\n" % body if stream else body
        ])  # fmt: skip
        resources = BackendResources(Settings(), ScriptedClient(reply))  # type: ignore[arg-type]
        entry = ModelConfig("contract-model", "openai", "http://upstream.test/v1", api_key=key)
        with pytest.raises(UpstreamAuthenticationError if key else UpstreamStatusError):
            ask(OpenAIBackend(entry, OpenAIOptions(), resources), stream=stream)
        assert reply.ending == "closed"

    def test_an_error_of_the_upstream_is_told_whole(self, make: MakesBackends, stream: bool) -> None:
        with pytest.raises(UpstreamStatusError) as caught:
            ask(make("fault-status:code=429,retry_after=7"), stream=stream)
        error = caught.value
        assert (error.upstream_status, error.code, error.headers) == (429, "rate_limit_exceeded", {"retry-after": "7"})

    def test_an_upstream_that_is_too_slow(self, make: MakesBackends, mock: MockUpstream, stream: bool) -> None:
        with pytest.raises(UpstreamTimeoutError):
            ask(make("fault-hang", timeouts=Timeouts(first_byte=0.1)), stream=stream)
        with pytest.raises(UpstreamTimeoutError):
            ask(make("fault-hang-headers", timeouts=Timeouts(idle=0.1)), stream=stream)
        mock.wait_until(lambda stats: stats["requests_open"] == 0)


def test_a_refusal_that_has_another_cause_teaches_nothing(make: MakesBackends) -> None:
    """Its words may well be the caller's own: usage would be lost for all callers."""
    backend = make("fault-status:code=400")
    with pytest.raises(UpstreamStatusError):
        ask(backend)
    assert backend.may_request_usage("contract-model")


def test_what_is_remembered_is_bounded(make: MakesBackends) -> None:
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
    def test_a_failure_half_way_comes_after_what_went_well(
        self, make: MakesBackends, name: str, error: type[UpstreamError]
    ) -> None:
        messages = [{"role": "user", "content": "hello there"}]
        stream = make(name).chat(ChatRequest("contract-model", messages, is_streamed=True), CallContext("contract"))
        deltas: list[Any] = []
        with pytest.raises(error):
            deltas.extend(stream)
        assert "You said: hello there".startswith(text_of(collect(iter(deltas)), 0))
        assert text_of(collect(iter(deltas)), 0)

    def test_a_broken_event_is_left_out(self, make: MakesBackends) -> None:
        messages = [{"role": "user", "content": "hello there"}]
        request = ChatRequest("contract-model", messages, is_streamed=True)
        deltas = collect(make("fault-bad-json-event").chat(request, CallContext("contract")))
        assert text_of(deltas, 0) == "You said: hello there"

    def test_a_whole_answer_without_its_end_is_ended(self, make: MakesBackends) -> None:
        messages = [{"role": "user", "content": "hello there"}]
        request = ChatRequest("contract-model", messages, is_streamed=True)
        deltas = collect(make("fault-no-end").chat(request, CallContext("contract")))
        assert (text_of(deltas, 0), deltas[-1].usage is None) == ("You said: hello there", False)

    def test_a_hundred_answers_left_at_any_point_leave_nothing_behind(
        self, make: MakesBackends, mock: MockUpstream
    ) -> None:
        backend = make("mock-model:chunks=30")
        request = ChatRequest("contract-model", [{"role": "user", "content": "a"}], is_streamed=True)
        for number in range(100):
            stream = backend.chat(request, CallContext("contract"))
            for _ in range(number % 7):
                next(stream, None)
            close_stream(stream)
        mock.wait_until(lambda stats: stats["requests_open"] == 0, 2.0)
        assert ask(backend)


class TestForwarding:
    def test_bytes_in_bytes_out(self, make: MakesBackends, mock: MockUpstream) -> None:
        body = b'{"model" : "mock-model", "messages": [{"role": "user", "content": "hi"}]}'
        headers = {"Content-Type": "application/json"}
        call = UpstreamRequest("POST", "chat/completions?trace=1", headers, body)
        reply = make().forward(call, CallContext("contract"))
        assert reply.status == 200
        assert json.loads(reply.read())["choices"][0]["message"]["content"] == "You said: hi"
        reply.close()
        seen = mock.requests()[-1]
        assert (seen["path"], seen["query"], seen["body"]) == ("/v1/chat/completions", "trace=1", body.decode())
