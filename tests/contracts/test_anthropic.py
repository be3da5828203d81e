"""The contract of the anthropic backend, with the mock upstream on real sockets, and its own tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from openai_compat.backends.anthropic.backend import AnthropicBackend
from openai_compat.backends.anthropic.request import AnthropicOptions
from openai_compat.backends.http.client import UpstreamClient
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
from openai_compat.core.timeouts import Timeouts
from openai_compat.core.types import CallContext, ChatRequest, Usage
from openai_compat.routing.failure_policy import REFUSED, TOO_LONG, classify
from tests.contracts.backend_contract import (
    TOOL,
    UNICODE,
    ChatContract,
    assert_well_formed,
    collect,
    last_usage,
    text_of,
)
from tests.support.mock_upstream import MockUpstream

UNSUPPORTED_BY_THE_MOCK = frozenset({"stop", "response_format"})
"""Parameters that change the mock's answer differently. `test_request.py` checks what is sent for them."""


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
        self.settings = Settings()
        self.http_client = UpstreamClient(self.settings)

    def __call__(
        self, upstream_model: str | None = None, options: AnthropicOptions | None = None, **entry: Any
    ) -> AnthropicBackend:
        fields = {"base_url": self._mock.url, "upstream_model": upstream_model, **entry}
        config = ModelConfig("contract-model", "anthropic", **fields)
        return AnthropicBackend(
            config, options or AnthropicOptions(), BackendResources(self.settings, self.http_client)
        )


@pytest.fixture
def make(mock: MockUpstream) -> Iterator[BackendFactory]:
    factory = BackendFactory(mock)
    yield factory
    factory.http_client.close()


def ask(
    backend: AnthropicBackend,
    text: str = "hello there",
    *,
    stream: bool = True,
    context: CallContext | None = None,
    **parameters: Any,
) -> list[Any]:
    request = ChatRequest("contract-model", [{"role": "user", "content": text}], parameters, is_streamed=stream)
    return collect(backend.chat(request, context or CallContext("contract")))


class TestAnthropicChat(ChatContract):
    upstream: ClassVar[MockUpstream]

    @pytest.fixture(autouse=True)
    def _upstream(self, mock: MockUpstream) -> None:
        type(self).upstream = mock

    @pytest.fixture
    def backend(self, make: BackendFactory) -> AnthropicBackend:
        return make()

    @pytest.fixture
    def slow_backend(self, make: BackendFactory) -> AnthropicBackend:
        return make("fault-hang-headers")

    def running_work(self, backend: AnthropicBackend) -> int:
        return int(self.upstream.stats()["requests_open"])

    def supported_parameters(self, backend: Any) -> frozenset[str]:
        return super().supported_parameters(backend) - UNSUPPORTED_BY_THE_MOCK


@pytest.mark.parametrize("stream", [False, True])
class TestAnswers:
    @pytest.mark.parametrize(
        "name",
        ["fault-split-utf8:suffix=,delay=0", "fault-one-byte", "fault-crlf", "fault-coalesced", "fault-gzip",
         "fault-close-delimited", "fault-no-done", "fault-bad-json-event"],
    )  # fmt: skip
    def test_unusual_bytes_change_no_answer(self, make: BackendFactory, name: str, stream: bool) -> None:
        assert text_of(ask(make(name), UNICODE, stream=stream), 0) == f"You said: {UNICODE}"

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("fault-cut-mid-event", UpstreamTruncatedError),
            ("fault-reset", UpstreamTruncatedError),
            ("fault-truncated-length", None),
            ("fault-reset-before", UpstreamConnectionError),
            ("fault-bad-json", UpstreamInvalidResponseError),
            ("fault-empty", UpstreamError),
            ("fault-no-finish", UpstreamError),
            ("fault-html-error:code=200", UpstreamError),
            ("fault-error-in-stream:code=529", UpstreamStatusError),
            ("fault-stall", UpstreamTimeoutError),
        ],
    )
    def test_what_is_no_complete_answer_is_an_error(
        self, make: BackendFactory, name: str, error: type[Exception] | None, stream: bool
    ) -> None:
        backend = make(name, timeouts=Timeouts(idle=0.3))
        if error is None and stream:  # the end mark arrived, so nothing is missing
            assert text_of(ask(backend, stream=True), 0) == "You said: hello there"
            return
        with pytest.raises(error or UpstreamTruncatedError):
            ask(backend, stream=stream)

    @pytest.mark.parametrize(
        ("name", "status", "type_", "code"),
        [
            ("fault-status:code=429,retry_after=2", 429, "rate_limit_error", "rate_limit_exceeded"),
            ("fault-status:code=529", 529, "server_error", "overloaded"),
            ("fault-status:code=500", 500, "server_error", None),
            ("fault-status:code=404", 404, "invalid_request_error", "model_not_found"),
            ("fault-context-length", 400, "invalid_request_error", "context_length_exceeded"),
            ("fault-html-error", 502, "server_error", None),
        ],
    )
    def test_refusals_have_types_of_openai(
        self, make: BackendFactory, name: str, status: int, type_: str, code: str | None, stream: bool
    ) -> None:
        with pytest.raises(UpstreamStatusError) as refused:
            ask(make(name), stream=stream)
        error = refused.value
        assert (error.upstream_status, error.type, error.code) == (status, type_, code)
        assert "<html>" not in error.message

    def test_usage_includes_the_cache(self, make: BackendFactory, stream: bool) -> None:
        backend = make(options=AnthropicOptions(cache="auto"))
        deltas = ask(backend, stream=stream, tools=[TOOL], tool_choice="none")
        assert last_usage(deltas) == Usage(16, 4, cache_write_tokens=10)

    def test_thinking_is_reasoning_with_details_that_claude_takes_back(
        self, make: BackendFactory, stream: bool
    ) -> None:
        backend = make("claude-sonnet-4-5")
        deltas = ask(backend, stream=stream, tools=[TOOL], reasoning_effort="low")
        assert_well_formed(deltas, choices=1)
        thoughts = "".join(delta.reasoning or "" for delta in deltas)
        (details,) = [detail for delta in deltas for detail in delta.reasoning_details]
        assert details["text"] == thoughts == "The user said something, so I answer."
        assert last_usage(deltas).reasoning_tokens > 0
        call = next(call for delta in deltas for call in delta.tool_calls)
        messages = [
            {"role": "user", "content": "hello there"},
            {
                "role": "assistant",
                "content": None,
                "reasoning_details": [details],
                "tool_calls": [{"id": call.id, "type": "function", "function": {"name": call.name, "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": call.id, "content": "warm"},
        ]
        request = ChatRequest("contract-model", messages, {"tools": [TOOL], "reasoning_effort": "low"}, stream)
        assert text_of(collect(backend.chat(request, CallContext("contract"))), 0)

    def test_redacted_thinking_is_kept(self, make: BackendFactory, mock: MockUpstream, stream: bool) -> None:
        backend = make("mock-model:redacted=1", AnthropicOptions(thinking="budget"))
        deltas = ask(backend, stream=stream, reasoning_effort="high")
        (details,) = [detail for delta in deltas for detail in delta.reasoning_details]
        assert details["type"] == "reasoning.encrypted"
        assert details["data"]


class TestRouting:
    def test_an_overload_lets_another_target_answer(self, make: BackendFactory) -> None:
        with pytest.raises(UpstreamStatusError) as refused:
            ask(make("fault-status:code=529"))
        assert classify(refused.value) == REFUSED

    def test_a_long_prompt_needs_a_larger_window(self, make: BackendFactory) -> None:
        with pytest.raises(UpstreamStatusError) as refused:
            ask(make("fault-context-length"))
        assert classify(refused.value) == TOO_LONG


class TestCredentials:
    def headers(self, mock: MockUpstream) -> dict[str, str]:
        headers: dict[str, str] = mock.requests()[-1]["headers"]
        return headers

    def test_the_configured_key_is_sent_and_no_other(self, make: BackendFactory, mock: MockUpstream) -> None:
        ask(make(api_key="sk-server"), context=CallContext("contract", authorization="Bearer sk-caller"))
        assert self.headers(mock)["x-api-key"] == "sk-server"
        assert "sk-caller" not in json.dumps(mock.requests())

    @pytest.mark.parametrize(
        ("authorization", "name", "value"),
        [
            ("Bearer sk-ant-api03-x", "x-api-key", "sk-ant-api03-x"),
            ("Bearer sk-ant-oat01-x", "authorization", "Bearer sk-ant-oat01-x"),
        ],
    )
    def test_a_caller_brings_the_credential_where_none_is_configured(
        self, make: BackendFactory, mock: MockUpstream, authorization: str, name: str, value: str
    ) -> None:
        ask(make(), context=CallContext("contract", authorization=authorization))
        assert self.headers(mock)[name] == value

    def test_a_refused_key_of_the_server_is_no_error_of_the_caller(self, make: BackendFactory) -> None:
        with pytest.raises(UpstreamAuthenticationError):
            ask(make("fault-status:code=401", api_key="sk-server"))
        with pytest.raises(UpstreamStatusError):
            ask(make("fault-status:code=401"), context=CallContext("contract", authorization="Bearer sk-caller"))

    def test_version_and_betas_are_sent_but_no_headers_of_openai(
        self, make: BackendFactory, mock: MockUpstream
    ) -> None:
        options = AnthropicOptions(betas="one, two")
        ask(make(options=options), context=CallContext("contract", headers={"openai-organization": "org"}))
        headers = self.headers(mock)
        assert (headers["anthropic-version"], headers["anthropic-beta"]) == ("2023-06-01", "one,two")
        assert "openai-organization" not in headers


@pytest.mark.parametrize("suffix", ["", "/v1", "/v1/", "/anthropic"])
def test_the_base_url_may_end_with_the_version(make: BackendFactory, mock: MockUpstream, suffix: str) -> None:
    assert text_of(ask(make(base_url=mock.url + suffix)), 0) == "You said: hello there"
