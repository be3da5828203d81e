"""The cached list of the upstream's models, with one request for all callers and bounded waits."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from openai_compat.backends.base import SupportsForwarding
from openai_compat.backends.http.messages import UpstreamRequest
from openai_compat.core.errors import OpenAICompatError, UpstreamConnectionError, UpstreamError, UpstreamStatusError
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.streams import BackgroundStart
from openai_compat.core.types import CallContext
from openai_compat.services import model_catalog
from openai_compat.services.model_catalog import ModelCatalog, UpstreamModelCache
from tests.support.fake_http_client import ScriptedResponse, make
from tests.support.waiting import wait_until

CONTEXT = CallContext("r", headers={"if-none-match": '"a"', "range": "bytes=0-1", "user-agent": "x"})
TTL = 300


class Upstream(SupportsForwarding):
    """Upstream with scripted answers, the last of which repeats. It blocks until `unblock()`."""

    upstream_model = None

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[UpstreamRequest] = []
        self.is_unblocked = threading.Event()

    def forward(self, call: UpstreamRequest, context: CallContext) -> ScriptedResponse:
        self.calls.append(call)
        self.is_unblocked.wait(20)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, ScriptedResponse) else make({"data": [{"id": name} for name in answer]})

    def unblock(self) -> None:
        self.is_unblocked.set()

    def block(self) -> None:
        self.is_unblocked.clear()


class Clock:
    """The time that the cache sees."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(model_catalog, "monotonic", clock)
    return clock


class Waits:
    """The seconds that callers were to wait for a fetch. In fact they wait for up to `limit` seconds."""

    def __init__(self) -> None:
        self.recorded: list[float] = []
        self.limit = 20.0


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    waits = Waits()

    class RecordedStart(BackgroundStart[Any]):
        def wait(self, seconds: float | None = None) -> bool:
            if seconds is None:  # `result()` calls it once the fetch has ended
                return super().wait()
            waits.recorded.append(seconds)
            return super().wait(waits.limit)

    monkeypatch.setattr(model_catalog, "BackgroundStart", RecordedStart)
    return waits


def names(cache: UpstreamModelCache, context: CallContext = CONTEXT) -> list[str]:
    return [model["id"] for model in cache.get(context)]


def wait_for_fetches(cache: UpstreamModelCache) -> None:
    wait_until(lambda: not cache._fetches, "the fetch has ended")


def test_only_the_first_callers_wait_for_a_hanging_upstream(clock: Clock, waits: Waits) -> None:
    upstream = Upstream(["a"])
    waits.limit = 0.01
    cache = UpstreamModelCache(upstream, TTL)
    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(lambda _: names(cache), range(5))) == [[]] * 5
    assert waits.recorded == [model_catalog.FIRST_FETCH_TIMEOUT] * 5
    clock.now += model_catalog.FIRST_FETCH_TIMEOUT
    assert [names(cache) for _ in range(20)] == [[]] * 20
    assert waits.recorded[5:] == [0.0] * 20
    upstream.unblock()
    wait_for_fetches(cache)
    assert names(cache) == ["a"]
    assert len(upstream.calls) == 1


@pytest.mark.parametrize(
    ("failure", "expected"),
    [(UpstreamConnectionError("gone"), UpstreamConnectionError), (make({}, status=401), UpstreamStatusError)],
)
def test_a_failure_is_logged_once_and_cached_for_the_retry_interval(
    failure: Any, expected: type[OpenAICompatError], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = Upstream(failure, ["a"])
    upstream.unblock()
    cache = UpstreamModelCache(upstream, TTL)
    with caplog.at_level(logging.WARNING, "openai_compat"):
        for _ in range(10):
            with pytest.raises(expected):
                names(cache)
            wait_for_fetches(cache)
    assert len(upstream.calls) == 1
    assert len(caplog.records) == 1
    clock.now += model_catalog.RETRY_INTERVAL
    assert names(cache) == ["a"]


def test_a_failed_refresh_keeps_the_old_list(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    upstream = Upstream(["a"], UpstreamConnectionError("gone"), ["b"])
    upstream.unblock()
    cache = UpstreamModelCache(upstream, TTL)
    assert names(cache) == ["a"]
    clock.now += TTL + 1
    with caplog.at_level(logging.WARNING, "openai_compat"):
        for _ in range(5):
            assert names(cache) == ["a"]
            wait_for_fetches(cache)
    assert (len(upstream.calls), len(caplog.records)) == (2, 1)
    clock.now += model_catalog.RETRY_INTERVAL
    assert names(cache) == ["a"]
    wait_for_fetches(cache)
    assert names(cache) == ["b"]


def test_a_hanging_fetch_after_a_failure_raises_the_failure(clock: Clock, waits: Waits) -> None:
    upstream = Upstream(UpstreamConnectionError("gone"))
    upstream.unblock()
    cache = UpstreamModelCache(upstream, TTL)
    with pytest.raises(UpstreamConnectionError):
        names(cache)
    wait_for_fetches(cache)
    upstream.block()
    waits.limit = 0.01
    clock.now += model_catalog.RETRY_INTERVAL
    with pytest.raises(UpstreamConnectionError):
        names(cache)
    upstream.unblock()
    wait_for_fetches(cache)


class Routing:
    """Router with the default upstream alone, or beside a model of its own."""

    def __init__(self, upstream: Upstream, *routes: Any) -> None:
        self.forwarding_upstream = upstream
        self._routes = routes

    def routes(self) -> Any:
        return self._routes

    def allows(self, model: str) -> bool:
        return model in ("x", "y")


def listed_by(failure: Any, *routes: Any) -> list[str]:
    upstream = Upstream(failure)
    upstream.unblock()
    catalog = ModelCatalog(Settings(model_allow_list=("x", "y")), Routing(upstream, *routes))  # type: ignore[arg-type]
    return [model["id"] for model in catalog.list_all(CONTEXT)["data"]]


@pytest.mark.parametrize("failure", [*(make({}, status=status) for status in (404, 405, 501)), make("<html>")])
def test_the_allow_list_is_listed_if_the_upstream_has_no_list(failure: Any) -> None:
    assert listed_by(failure) == ["x", "y"]
    own = SimpleNamespace(model="y", entry=ModelConfig("y", "echo", owned_by="me"))
    assert listed_by(failure, own) == ["y", "x"]


@pytest.mark.parametrize("failure", [UpstreamConnectionError("gone"), make({}, status=401), make({}, status=500)])
def test_other_failures_are_not_hidden_by_the_allow_list(failure: Any) -> None:
    with pytest.raises(UpstreamError):
        listed_by(failure)


def test_each_credential_has_its_own_list() -> None:
    upstream = Upstream(["a"], ["b"])
    upstream.unblock()
    cache = UpstreamModelCache(upstream, TTL)
    anna, bert = (CallContext("r", authorization=f"Bearer {name}") for name in ("anna", "bert"))
    assert [names(cache, anna), names(cache, bert), names(cache, anna)] == [["a"], ["b"], ["a"]]


def test_the_request_omits_conditional_and_range_headers() -> None:
    """Other callers share the list, so it must be complete."""
    upstream = Upstream(["a"])
    upstream.unblock()
    names(UpstreamModelCache(upstream, TTL))
    assert upstream.calls[0].headers == {"user-agent": "x"}


def test_the_shared_list_is_asked_for_in_openais_form() -> None:
    upstream = Upstream(["a"])
    upstream.unblock()
    context = CallContext("r", headers={"anthropic-version": "2023-06-01", "user-agent": "x"})
    UpstreamModelCache(upstream, TTL).get(context)
    assert dict(upstream.calls[0].headers) == {"user-agent": "x"}
