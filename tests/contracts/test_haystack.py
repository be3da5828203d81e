"""The haystack backend keeps the contract: a pipeline in its own process, the echo model and the mock behind it."""

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
from tests.support.tools import require_extra

RATE_LIMITED = "fault-status:code=429,retry_after=3"
SLOW = "fault-slow:delay=0.05,chunks=2000"


@pytest.fixture(scope="module")
def mock() -> Iterator[MockUpstream]:
    with MockUpstream() as upstream:
        yield upstream


class MakesBackends:
    """Backends in front of one process of pipelines, whose models are the echo model and the mock upstream's."""

    def __init__(self, mock: MockUpstream) -> None:
        rows = [
            ModelConfig("echo", "echo"),
            ModelConfig("contract-model", "haystack", options={"generator": "echo"}),
            *(
                ModelConfig(f"pipeline/{model}", "haystack", base_url=mock.base_url, upstream_model=model)
                for model in ("fault-hang-headers", RATE_LIMITED, SLOW)
            ),
        ]
        self.settings = Settings(entries={row.name: row for row in rows})
        self._forwarder = UpstreamClient(self.settings)
        self.made: list[HaystackBackend] = []

    def __call__(self, name: str) -> HaystackBackend:
        entry = self.settings.entries[name]
        resources = BackendResources(self.settings, self._forwarder)
        backend = HaystackBackend(entry, HaystackOptions(**entry.options), resources)
        self.made.append(backend)
        return backend

    def close(self) -> None:
        for backend in self.made:
            backend.close()
        self._forwarder.close()


@pytest.fixture(scope="module")
def make(mock: MockUpstream) -> Iterator[MakesBackends]:
    require_extra("haystack")
    makes = MakesBackends(mock)
    makes("contract-model").describe()  # the tests that watch the clock find the process started
    makes("pipeline/fault-hang-headers").describe()
    yield makes
    makes.close()


class TestHaystack(ChatContract):
    echoes = True
    upstream: MockUpstream

    @pytest.fixture(autouse=True)
    def _upstream(self, mock: MockUpstream) -> None:
        mock.reset()
        type(self).upstream = mock

    @pytest.fixture
    def backend(self, make: MakesBackends) -> HaystackBackend:
        return make("contract-model")

    @pytest.fixture
    def slow_backend(self, make: MakesBackends) -> HaystackBackend:
        return make("pipeline/fault-hang-headers")

    def running_work(self, backend: Any) -> int:
        return int(self.upstream.stats()["requests_open"])


def begin(backend: HaystackBackend, text: str = "hello there", **parameters: Any) -> Iterator[Any]:
    request = ChatRequest(backend.name, [{"role": "user", "content": text}], parameters, is_streamed=True)
    return backend.chat(request, CallContext("contract"))


def test_the_models_own_error_is_relayed(make: MakesBackends) -> None:
    with pytest.raises(UpstreamStatusError) as error:
        collect(begin(make(f"pipeline/{RATE_LIMITED}")))
    assert error.value.upstream_status == 429
    assert error.value.headers["retry-after"] == "3"


def test_a_stream_that_is_left_ends_the_call_to_the_model(make: MakesBackends, mock: MockUpstream) -> None:
    stream = begin(make(f"pipeline/{SLOW}"))
    assert next(stream).content
    mock.wait_until(lambda stats: stats["requests_open"] == 1)
    close_stream(stream)
    mock.wait_until(lambda stats: stats["requests_open"] == 0, 2.0)


def test_a_conversations_name_is_judged(make: MakesBackends) -> None:
    for name in (7, "", "x" * 201):
        with pytest.raises(InvalidRequestError) as error:
            begin(make("contract-model"), conversation_id=name)
        assert error.value.param == "conversation_id"
