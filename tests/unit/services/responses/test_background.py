"""Background responses while the database is away."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.core.errors import StorageUnavailableError
from openai_compat.core.types import CallContext, Usage
from openai_compat.services.event_stream import CompleteAnswer
from openai_compat.services.responses import background
from openai_compat.services.responses.background import BackgroundJob
from openai_compat.services.responses.lifecycle import Lifecycle

DONE = {"id": "resp_1", "status": "completed"}


class Store:
    """A store that is away for the first calls."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.stored: list[str] = []

    def reserve(self, _: str) -> Any:
        return self

    def release(self) -> None: ...

    def proceed(self, _: str, response: Any, *__: Any) -> bool:
        if self.failures:
            self.failures -= 1
            raise StorageUnavailableError
        self.stored.append(response["status"])
        return True


class State:
    owner = "me"

    def save(self, *_: Any) -> None: ...

    def append(self, *_: Any) -> None: ...

    def release(self) -> None: ...


def job_with(store: Any) -> BackgroundJob:
    state: Any = State()
    lifecycle = Lifecycle({"id": "resp_1", "status": "queued"}, begins_early=False)
    answer = CompleteAnswer(200, {}, b"{}", Usage(1, 2))
    return BackgroundJob(store, state, lifecycle, lambda _: answer, lambda: DONE, is_streamed=False)


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_an_outage_before_the_answer_begins_loses_nothing(monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    monkeypatch.setattr(background, "RETRY_DELAYS", (0, 0, 0))
    store = Store(failures)
    job = job_with(store)
    job.queue()
    job.run(CallContext("req_1"))
    assert store.stored == ["in_progress", "completed"]


def test_a_long_outage_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "RETRY_DELAYS", (0, 0))
    job = job_with(Store(99))
    job.queue()
    with pytest.raises(StorageUnavailableError):
        job.run(CallContext("req_1"))
    assert (job.end.status, job.end.error) == (500, "storage_unavailable")
