"""Threads of running pipelines, their backpressure and their cancellation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from haystack import Pipeline, component
from haystack.dataclasses import StreamingChunk

from openai_compat.core.errors import CallCancelledError
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.types import CallContext, ChatRequest
from openai_compat.sidecars.haystack import pipeline_backend
from openai_compat.sidecars.haystack.errors import ClientDisconnected
from openai_compat.sidecars.haystack.pipeline_backend import MAX_BUFFERED, PipelineBackend
from openai_compat.sidecars.haystack.registry import PipelineRegistry
from tests.support.waiting import wait_until

pytestmark = pytest.mark.extra("haystack")

ENDLESS = 1_000_000


@component
class Counter:
    """Streams numbers, or computes until `released` is set. `ended_by` records what stopped it."""

    def __init__(self) -> None:
        self.streamed = 0
        self.is_running = threading.Event()
        self.released = threading.Event()
        self.ended_by: BaseException | None = None

    @component.output_types(replies=list[str])
    def run(self, query: str, streaming_callback: Callable[[StreamingChunk], None] | None = None) -> dict[str, Any]:
        self.is_running.set()
        if query == "compute":
            self.released.wait(20)
            return {"replies": ["computed"]}
        try:
            for number in range(int(query)):
                assert streaming_callback is not None
                streaming_callback(StreamingChunk(f"{number} "))
                self.streamed += 1
        except BaseException as error:
            self.ended_by = error
            raise
        return {"replies": ["".join(f"{number} " for number in range(int(query)))]}


counter: Counter


def make_pipeline() -> Pipeline:
    """Factory that the model config of the tests names."""
    pipeline = Pipeline()
    pipeline.add_component("counter", counter)
    return pipeline


@pytest.fixture
def backend() -> Iterator[PipelineBackend]:
    global counter
    counter = Counter()
    options = {"factory": f"{__name__}:make_pipeline", "concurrency": 1}
    entry = ModelConfig("counter", "haystack", options=options)
    yield PipelineRegistry(Settings(entries={"counter": entry}, log_level="error")).backends["counter"]
    counter.released.set()


def chat(backend: PipelineBackend, query: str, context: CallContext | None = None) -> Iterator[Any]:
    request = ChatRequest("counter", [{"role": "user", "content": query}], {})
    return backend.chat(request, context or CallContext("test"))


def test_deltas_arrive_in_order(backend: PipelineBackend) -> None:
    deltas = list(chat(backend, "200"))
    assert "".join(delta.content or "" for delta in deltas).split() == [str(number) for number in range(200)]
    assert deltas[-1].finish_reason == "stop"


def test_a_pipeline_waits_for_a_slow_client_and_ends_when_the_stream_is_closed(backend: PipelineBackend) -> None:
    stream: Any = chat(backend, str(ENDLESS))
    next(stream)
    wait_until(lambda: counter.streamed > MAX_BUFFERED)
    assert counter.streamed <= MAX_BUFFERED + 1, "the buffer, and the delta that was read"
    stream.close()
    wait_until(lambda: isinstance(counter.ended_by, ClientDisconnected))


def test_a_cancelled_call_ends_while_a_component_computes(backend: PipelineBackend) -> None:
    context = CallContext("test")
    stream = chat(backend, "compute", context)
    threading.Timer(0.1, context.cancellation.cancel).start()
    with pytest.raises(CallCancelledError):
        next(stream)
    assert not counter.released.is_set()


def test_a_call_that_waits_for_a_slot_can_be_cancelled(
    backend: PipelineBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_backend, "POLL_INTERVAL", 0.01)
    running = threading.Thread(target=lambda: list(chat(backend, "compute")))
    running.start()
    assert counter.is_running.wait(20)
    context = CallContext("test")
    threading.Timer(0.1, context.cancellation.cancel).start()
    with pytest.raises(CallCancelledError):
        list(chat(backend, "1", context))
    counter.released.set()
    running.join()
    assert "".join(delta.content or "" for delta in chat(backend, "1")) == "0 "
