"""A worker's calls to the Haystack sidecar, with scripted responses in place of the sidecar."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from openai_compat.backends.auth.base import USER_TOKEN
from openai_compat.backends.haystack.backend import HaystackBackend, HaystackOptions
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import (
    InternalError,
    OpenAICompatError,
    UpstreamAuthenticationError,
    UpstreamConnectError,
    UpstreamConnectionError,
    UpstreamError,
    UpstreamStatusError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
)
from openai_compat.core.profiles import ADAPTED_HEADER
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest
from tests.support.fake_http_client import EVENTS, ScriptedClient, ScriptedResponse, events, make

NOTE = {"type": "url_citation", "url_citation": {"url": "cats.md"}}
ANSWER = events(
    {"choices": [{"index": 0, "delta": {"content": "Hi"}}]},
    {"choices": [{"index": 0, "delta": {"content": "!", "annotations": [NOTE]}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    end="data: [DONE]\n\n",
)
FAILED = {"error": {"message": "The pipeline failed.", "type": "server_error", "param": None, "code": "internal_error"}}


class Client(ScriptedClient):
    """Client that raises `failures` before it returns its response."""

    def __init__(self, response: ScriptedResponse, failures: Iterable[OpenAICompatError] = ()) -> None:
        super().__init__(response)
        self.failures = list(failures)
        self.calls = 0

    def send(self, method: str, url: str, **options: Any) -> ScriptedResponse:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return super().send(method, url, **{**options, "body": options["body"] or b"{}"})


class Sidecar:
    """Sidecar client that counts how often it is started."""

    url = "http+unix://socket"

    def __init__(self, *, is_joined: bool) -> None:
        self.is_joined = is_joined
        self.starts = 0

    def start(self, _cancellation: object) -> None:
        self.starts += 1


def backend_for(client: Client, *, is_joined: bool = True) -> tuple[HaystackBackend, Sidecar]:
    entry = ModelConfig("pets", "haystack")
    backend = HaystackBackend(entry, HaystackOptions(), BackendResources(Settings(), client))  # type: ignore[arg-type]
    sidecar = Sidecar(is_joined=is_joined)
    backend._sidecar = sidecar  # type: ignore[assignment]
    return backend, sidecar


def chat(backend: HaystackBackend, context: CallContext | None = None, **parameters: Any) -> list[Any]:
    request = ChatRequest("pets", [{"role": "user", "content": "Zoë"}], parameters)
    return list(backend.chat(request, context or CallContext("req_1")))


def test_every_call_is_streamed_with_usage_and_what_the_pipeline_needs_of_the_caller() -> None:
    client = Client(make(ANSWER, EVENTS, is_chunked=True))
    context = CallContext("req_1", authorization="Bearer key", sent_header={USER_TOKEN: "token"}.get)
    deltas = chat(backend_for(client)[0], context, conversation_id="c-1", temperature=0.5)
    assert "".join(delta.content or "" for delta in deltas) == "Hi!"
    assert [note for delta in deltas for note in delta.annotations] == [NOTE]
    assert any(delta.usage for delta in deltas)
    assert (client.method, client.url) == ("POST", "http+unix://socket/chat/completions")
    assert client.body == {
        "model": "pets", "messages": [{"role": "user", "content": "Zoë"}], "temperature": 0.5,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    key = client.headers.pop("x-conversation-id")
    assert len(key) == 64
    assert client.headers == {
        "content-type": "application/json", "x-request-id": "req_1", "authorization": "Bearer key",
        "x-forwarded-access-token": "token",
    }  # fmt: skip


def test_a_parameter_cannot_turn_streaming_off() -> None:
    client = Client(make(ANSWER, EVENTS, is_chunked=True))
    chat(backend_for(client)[0], stream=False)
    assert client.body["stream"] is True


def test_adaptations_are_reported() -> None:
    context = CallContext("req_1")
    chat(backend_for(Client(make(ANSWER, EVENTS, is_chunked=True, x_openai_compat_adapted="seed=dropped")))[0], context)
    assert context.reply_headers == {ADAPTED_HEADER: "seed=dropped"}
    context = CallContext("req_1")
    chat(backend_for(Client(make(ANSWER, EVENTS, is_chunked=True)))[0], context)
    assert context.reply_headers == {}


def test_the_models_error_keeps_its_status_and_retry_headers() -> None:
    body = {"error": {"message": "slow down", "type": "requests", "param": None, "code": "x"}}
    with pytest.raises(UpstreamStatusError) as error:
        chat(backend_for(Client(make(body, status=429, retry_after="3")))[0])
    assert error.value.upstream_status == 429
    assert error.value.headers == {"retry-after": "3"}
    assert error.value.to_envelope() == body


@pytest.mark.parametrize("response", [make(FAILED, status=500), make(events(FAILED), EVENTS, is_chunked=True)])
def test_a_failed_pipeline_is_an_internal_error(response: ScriptedResponse) -> None:
    """An upstream's status 500 would be retried, and would count as a fault of the upstream."""
    with pytest.raises(InternalError, match=r"The pipeline failed\."):
        chat(backend_for(Client(response))[0])


@pytest.mark.parametrize("kind", [UpstreamAuthenticationError, UpstreamTimeoutError, UpstreamTruncatedError])
@pytest.mark.parametrize("is_event", [True, False])
def test_the_sidecars_own_errors_are_this_servers(kind: type[UpstreamError], *, is_event: bool) -> None:
    """Routing must not retry a refused key or a timeout, and logs the first as an error."""
    envelope = kind("The model failed.").to_envelope()
    response = make(events(envelope), EVENTS, is_chunked=True) if is_event else make(envelope, status=502)
    with pytest.raises(kind, match=r"The model failed\."):
        chat(backend_for(Client(response))[0])


def test_a_sidecar_that_ends_is_not_sent_the_call_again() -> None:
    client = Client(make(ANSWER, EVENTS), [UpstreamConnectionError("closed")])
    backend, sidecar = backend_for(client)
    with pytest.raises(UpstreamTruncatedError, match="sidecar ended"):
        chat(backend)
    assert (client.calls, sidecar.starts) == (1, 0)


@pytest.mark.parametrize(("is_joined", "failures"), [(False, []), (True, [UpstreamConnectError("refused")])])
def test_the_sidecar_is_started_by_the_first_call_and_after_a_refused_connection(
    is_joined: bool, failures: list[OpenAICompatError]
) -> None:
    backend, sidecar = backend_for(Client(make(ANSWER, EVENTS, is_chunked=True), failures), is_joined=is_joined)
    assert isinstance(chat(backend)[0], ChatDelta)
    assert sidecar.starts == 1


def test_closing_the_stream_closes_the_response() -> None:
    response = make(ANSWER, EVENTS, is_chunked=True)
    backend, _ = backend_for(Client(response))
    stream: Any = backend.chat(ChatRequest("pets", [], {}), CallContext("req_1"))
    stream.close()
    assert response.ending == "closed"


def test_a_pipeline_that_cannot_be_loaded_is_described() -> None:
    description = {"state": "ready", "pipeline": {}}
    assert backend_for(Client(make(description)))[0].describe() == description
    failed = backend_for(Client(make(FAILED, status=500)))[0].describe()
    assert failed == {"state": "failed", "problem": "The pipeline failed."}
