"""The backend contract for kind `haystack`, with a sidecar, the echo model and the mock upstream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from openai_compat.backends.haystack.backend import HaystackBackend, HaystackOptions
from openai_compat.backends.http.client import UpstreamClient
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import InvalidRequestError, UpstreamStatusError
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.streams import close_stream
from openai_compat.core.types import CallContext, ChatRequest
from tests.contracts.backend_contract import ChatContract, collect
from tests.support.mock_upstream import MockUpstream

pytestmark = pytest.mark.extra("haystack")

RATE_LIMITED = "fault-status:code=429,retry_after=3"
SLOW = "fault-slow:delay=0.05,chunks=2000"


@pytest.fixture(scope="module")
def mock() -> Iterator[MockUpstream]:
    with MockUpstream() as upstream:
        yield upstream


class BackendFactory:
    """Factory of backends that share one sidecar, with the echo model and the mock upstream as its models."""

    def __init__(self, mock: MockUpstream) -> None:
        entries = [
            ModelConfig("echo", "echo"),
            ModelConfig("contract-model", "haystack", options={"generator": "echo"}),
            *(
                ModelConfig(f"pipeline/{model}", "haystack", base_url=mock.base_url, upstream_model=model)
                for model in ("fault-hang-headers", RATE_LIMITED, SLOW)
            ),
        ]
        self.settings = Settings(entries={entry.name: entry for entry in entries})
        self._forwarder = UpstreamClient(self.settings)
        self._backends: list[HaystackBackend] = []

    def __call__(self, name: str) -> HaystackBackend:
        entry = self.settings.entries[name]
        resources = BackendResources(self.settings, self._forwarder)
        backend = HaystackBackend(entry, HaystackOptions(**entry.options), resources)
        self._backends.append(backend)
        return backend

    def close(self) -> None:
        for backend in self._backends:
            backend.close()
        self._forwarder.close()


@pytest.fixture(scope="module")
def make(mock: MockUpstream) -> Iterator[BackendFactory]:
    factory = BackendFactory(mock)
    factory("contract-model").describe()  # starts the sidecar before tests that measure time
    factory("pipeline/fault-hang-headers").describe()
    yield factory
    factory.close()


class TestHaystack(ChatContract):
    echoes = True
    upstream: MockUpstream

    @pytest.fixture(autouse=True)
    def _upstream(self, mock: MockUpstream) -> None:
        mock.reset()
        type(self).upstream = mock

    @pytest.fixture
    def backend(self, make: BackendFactory) -> HaystackBackend:
        return make("contract-model")

    @pytest.fixture
    def slow_backend(self, make: BackendFactory) -> HaystackBackend:
        return make("pipeline/fault-hang-headers")

    def running_work(self, backend: Any) -> int:
        return int(self.upstream.stats()["requests_open"])

    @pytest.mark.skip(
        "the sidecar sends its headers with the first event, and the web layer sends keep-alive comments until then"
    )
    def test_an_idle_gap_yields_heartbeats(self, slow_backend: Any) -> None:
        """The call returns when there is no more idle gap before the first event."""

    @pytest.mark.skip("a call returns with its first event, so that the test of a waiting call covers this case")
    def test_closing_before_the_first_delta_ends_the_work(self, slow_backend: Any) -> None:
        """A stream that exists has its first event."""


def chat(backend: HaystackBackend, text: str = "hello there", **parameters: Any) -> Iterator[Any]:
    request = ChatRequest(backend.name, [{"role": "user", "content": text}], parameters, is_streamed=True)
    return backend.chat(request, CallContext("contract"))


def test_the_models_error_is_relayed(make: BackendFactory) -> None:
    with pytest.raises(UpstreamStatusError) as error:
        collect(chat(make(f"pipeline/{RATE_LIMITED}")))
    assert error.value.upstream_status == 429
    assert error.value.headers["retry-after"] == "3"


def test_closing_the_stream_ends_the_call_to_the_model(make: BackendFactory, mock: MockUpstream) -> None:
    stream = chat(make(f"pipeline/{SLOW}"))
    assert next(stream).content
    mock.wait_until(lambda stats: stats["requests_open"] == 1)
    close_stream(stream)
    mock.wait_until(lambda stats: stats["requests_open"] == 0)


def test_an_invalid_conversation_id_is_refused(make: BackendFactory) -> None:
    for name in (7, "", "x" * 201):
        with pytest.raises(InvalidRequestError) as error:
            chat(make("contract-model"), conversation_id=name)
        assert error.value.param == "conversation_id"
