"""The upstream's list of models: asked for once, remembered, and waited for by nobody for long."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from openai_compat.backends.base import SupportsForwarding
from openai_compat.backends.http.messages import UpstreamRequest
from openai_compat.core.errors import OpenAICompatError, UpstreamConnectionError, UpstreamStatusError
from openai_compat.core.types import CallContext
from openai_compat.services import model_catalog as models
from openai_compat.services.model_catalog import UpstreamModelCache
from tests.support.fake_http_client import ScriptedResponse, make

CONTEXT = CallContext("r", headers={"if-none-match": '"a"', "range": "bytes=0-1", "user-agent": "x"})


class Upstream(SupportsForwarding):
    """Answers when it is let, with what it is told to."""

    upstream_model = None

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[UpstreamRequest] = []
        self.may_answer = threading.Event()

    def forward(self, call: UpstreamRequest, context: CallContext) -> ScriptedResponse:
        self.calls.append(call)
        self.may_answer.wait(20)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, ScriptedResponse) else make({"data": [{"id": name} for name in answer]})

    def answer(self) -> None:
        self.may_answer.set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that are added to the time."""
    offset = [0.0]
    monkeypatch.setattr(models, "monotonic", lambda: time.monotonic() + offset[0])
    return offset


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "FIRST_FETCH_TIMEOUT", 0.3)


def names(listed: UpstreamModelCache, context: CallContext = CONTEXT) -> list[str]:
    return [model["id"] for model in listed.get(context)]


def settle(listed: UpstreamModelCache) -> None:
    """Waits until no list is on its way."""
    deadline = time.monotonic() + 5
    while listed._fetches:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_hanging_upstream_holds_up_the_first_callers_alone() -> None:
    upstream = Upstream(["a"])
    listed = UpstreamModelCache(upstream, 300)
    started = time.monotonic()
    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(lambda _: names(listed), range(5))) == [[]] * 5
    assert 0.3 <= time.monotonic() - started < 1
    for _ in range(20):
        assert names(listed) == []
    assert time.monotonic() - started < 2
    upstream.answer()
    settle(listed)
    assert names(listed) == ["a"]
    assert len(upstream.calls) == 1


@pytest.mark.parametrize(
    ("failure", "expected"),
    [(UpstreamConnectionError("gone"), UpstreamConnectionError), (make({}, status=401), UpstreamStatusError)],
)
def test_a_failure_is_logged_and_remembered_for_a_while(
    failure: Any, expected: type[OpenAICompatError], clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    upstream = Upstream(failure, ["a"])
    upstream.answer()
    listed = UpstreamModelCache(upstream, 300)
    with caplog.at_level(logging.WARNING, "openai_compat"):
        for _ in range(10):
            with pytest.raises(expected):
                names(listed)
            settle(listed)
    assert len(upstream.calls) == 1
    assert len(caplog.records) == 1
    clock[0] += models.RETRY_INTERVAL
    assert names(listed) == ["a"]


def test_a_refresh_that_fails_keeps_the_old_list(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    upstream = Upstream(["a"], UpstreamConnectionError("gone"), ["b"])
    upstream.answer()
    listed = UpstreamModelCache(upstream, 300)
    assert names(listed) == ["a"]
    clock[0] += 301
    with caplog.at_level(logging.WARNING, "openai_compat"):
        for _ in range(5):
            assert names(listed) == ["a"]
            settle(listed)
    assert (len(upstream.calls), len(caplog.records)) == (2, 1)
    clock[0] += models.RETRY_INTERVAL
    assert names(listed) == ["a"]
    settle(listed)
    assert names(listed) == ["b"]


def test_a_list_that_hangs_after_a_failure_tells_the_failure(clock: list[float]) -> None:
    upstream = Upstream(UpstreamConnectionError("gone"))
    upstream.answer()
    listed = UpstreamModelCache(upstream, 300)
    with pytest.raises(UpstreamConnectionError):
        names(listed)
    settle(listed)
    upstream.may_answer.clear()
    clock[0] += models.RETRY_INTERVAL
    with pytest.raises(UpstreamConnectionError):
        names(listed)
    upstream.answer()
    settle(listed)


def test_each_credential_has_its_own_list() -> None:
    upstream = Upstream(["a"], ["b"])
    upstream.answer()
    listed = UpstreamModelCache(upstream, 300)
    anna, bert = (CallContext("r", authorization=f"Bearer {name}") for name in ("anna", "bert"))
    assert [names(listed, anna), names(listed, bert), names(listed, anna)] == [["a"], ["b"], ["a"]]


def test_the_list_is_asked_for_whole() -> None:
    """It is for other callers too, who have no older one and want no piece of it."""
    upstream = Upstream(["a"])
    upstream.answer()
    names(UpstreamModelCache(upstream, 300))
    assert upstream.calls[0].headers == {"user-agent": "x"}
