"""Streams that are continued elsewhere: what the client sees of the break."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from openai_compat.backends.base import Backend, NoOptions
from openai_compat.core.errors import CallCancelledError, UpstreamStatusError, UpstreamTruncatedError
from openai_compat.core.settings import ModelConfig, RoutePolicy
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import CallContext, Usage
from openai_compat.routing.circuit_breaker import CircuitBreaker
from openai_compat.routing.failover import FailoverExecutor
from openai_compat.routing.load_balancer import WeightedRandom
from openai_compat.routing.route import RoutePlan, Target
from openai_compat.services.failover_streams import EventStream
from openai_compat.services.inference_call import InferenceCall
from openai_compat.services.sse_events import DONE, to_event
from openai_compat.services.stream_recovery import RecoveringStream, can_continue, resume_request
from openai_compat.state.memory import MemoryStore
from tests.unit.routing.test_failover import RESOURCES

CUT = UpstreamTruncatedError("cut")


def piece(content: str | None = None, *, id_: str = "1", finish: str | None = None, **delta: Any) -> bytes:
    shown = {**({"content": content} if content is not None else {}), **delta}
    choice = {"index": 0, "delta": shown, "finish_reason": finish}
    return to_event({"id": id_, "created": int(id_), "model": f"m{id_}", "choices": [choice]})


class Source:
    """A stream of what the test says; an exception in it is raised in its turn."""

    headers: Mapping[str, str] = {}
    has_failed = False
    usage: Usage | None = None

    def __init__(self, *blocks: bytes | Heartbeat | Exception) -> None:
        self.events = self._read(blocks)
        self.is_closed = False

    @staticmethod
    def _read(blocks: tuple[bytes | Heartbeat | Exception, ...]) -> Iterator[bytes | Heartbeat]:
        for block in blocks:
            if isinstance(block, Exception):
                raise block
            yield block

    def close(self) -> None:
        self.is_closed = True


class Scene:
    """A call whose targets answer with `sources`, by turns; `calls` are those that were put to them."""

    def __init__(self, *sources: Source | Exception, prefill: str | None = None, **payload: Any) -> None:
        self.sources = list(sources)
        self.calls: list[InferenceCall] = []
        names = [f"t{number}" for number in range(len(sources))]
        entries = [ModelConfig(name, "echo", assistant_prefill=prefill) for name in names]
        targets = [Target(entry.name, Backend(entry, NoOptions(), RESOURCES)) for entry in entries]
        policy = RoutePolicy(retries=0, cooldown=0, on_stream_break="continue")
        health = CircuitBreaker(MemoryStore(), names)
        self.plan = RoutePlan(policy, {"t0": targets[0]}, targets[1:], WeightedRandom({"t0": 1}), health)
        body = {"messages": [{"role": "user", "content": "q"}], "stream": True, **payload}
        self.call = InferenceCall("chat/completions", json.dumps(body).encode(), body, "m")

    def ask(self, call: InferenceCall, target: Target, context: CallContext) -> EventStream:
        self.calls.append(call)
        source = self.sources.pop(0)
        if isinstance(source, Exception):
            raise source
        return source

    def start(self, silence: float = 0.0) -> RecoveringStream:
        failover: FailoverExecutor[EventStream] = FailoverExecutor(self.plan, CallContext("req"))
        begun = failover.run(lambda target, context: self.ask(self.call, target, context))
        return RecoveringStream(failover, begun, self.call, self.ask, silence)

    def read(self) -> tuple[str, list[dict[str, Any]]]:
        """The text, and the chunks; raises what the stream raises."""
        received = b"".join(block for block in self.start() if isinstance(block, bytes))
        data = [line[6:] for line in received.decode().splitlines() if line.startswith("data: ")]
        assert data.pop() == "[DONE]"
        chunks = [json.loads(line) for line in data]
        return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks), chunks


def whole(*texts: str, id_: str = "2") -> Source:
    return Source(*(piece(text, id_=id_) for text in ("", *texts)), piece(id_=id_, finish="stop") + DONE)


@pytest.mark.parametrize(
    "texts", [["one two", " three"], ["one ", "two three"], ["one two three"], list("one two three")]
)
def test_what_was_sent_is_dropped_however_it_is_cut(texts: list[str]) -> None:
    scene = Scene(Source(piece("one "), piece("two"), CUT), whole(*texts))
    text, chunks = scene.read()
    assert text == "one two three"
    assert {(chunk["id"], chunk["created"]) for chunk in chunks} == {("1", 1)}
    assert chunks[-1]["model"] == "m2"


def test_a_model_that_goes_on_is_asked_for_the_rest_alone() -> None:
    scene = Scene(Source(piece("one "), piece("two"), CUT), whole(" three"), prefill="prefix")
    assert scene.read()[0] == "one two three"
    assert scene.calls[-1].payload["messages"][-1] == {"role": "assistant", "content": "one two", "prefix": True}
    assert json.loads(scene.calls[-1].body) == scene.calls[-1].payload


def test_one_that_refuses_to_go_on_is_asked_from_the_start() -> None:
    refusal = UpstreamStatusError("no prefill", upstream_status=400, type_="invalid_request_error")
    scene = Scene(Source(piece("one "), CUT), refusal, whole("one ", "two"), prefill="message")
    assert scene.read()[0] == "one two"
    assert scene.calls[-1] is scene.call


@pytest.mark.parametrize(
    "second",
    [whole("one twa"), whole("one"), whole("One two three"), CUT, Source(piece("one ", id_="2"), CUT)],
    ids=["differs", "shorter", "differs at once", "fails", "breaks before"],
)
def test_where_it_cannot_go_on_the_break_is_told(second: Source | Exception) -> None:
    with pytest.raises(UpstreamTruncatedError):
        Scene(Source(piece("one two"), CUT), second).read()


@pytest.mark.parametrize(
    "event",
    [
        piece(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": ""}}]),
        piece(reasoning_content="hm"),
        piece(refusal="no"),
        piece("all", finish="stop"),
    ],
    ids=["tool call", "reasoning", "refusal", "after the finish"],
)
def test_only_a_run_of_text_is_continued(event: bytes) -> None:
    scene = Scene(Source(piece("a"), event, CUT), whole("a b"))
    with pytest.raises(UpstreamTruncatedError):
        scene.read()
    assert len(scene.calls) == 1


def test_an_error_that_an_upstream_tells_is_a_break_and_what_came_before_it_is_sent() -> None:
    error = to_event({"error": {"message": "m", "type": "server_error", "param": None, "code": None}})
    scene = Scene(Source(piece("one ") + error), whole("one ", "two"))
    assert scene.read()[0] == "one two"


def test_comments_and_silences_pass() -> None:
    events = list(Scene(Source(b": ping\n\n", HEARTBEAT, piece("a", finish="stop") + DONE)).start())
    assert events == [b": ping\n\n", HEARTBEAT, piece("a", finish="stop") + DONE]


def test_the_first_one_is_closed_before_another_is_asked_and_that_one_at_the_end() -> None:
    first, second = Source(piece("a"), CUT), whole("a", "b")
    events = Scene(first, second).start()
    list(events)
    assert (first.is_closed, second.is_closed) == (True, False)
    events.close()
    assert second.is_closed


def test_while_another_is_looked_for_the_client_hears_something() -> None:
    may_answer = threading.Event()

    class Slow(Scene):
        def ask(self, call: InferenceCall, target: Target, context: CallContext) -> EventStream:
            if self.calls:
                assert may_answer.wait(20)
            return super().ask(call, target, context)

    events = Slow(Source(piece("a"), CUT), whole("a", "b")).start(silence=0.01)
    assert next(events) == piece("a")
    assert [next(events) for _ in range(3)] == [HEARTBEAT] * 3
    may_answer.set()
    assert b'"b"' in b"".join(block for block in events if isinstance(block, bytes))


def test_who_leaves_meanwhile_leaves_nothing_open() -> None:
    may_answer, second = threading.Event(), whole("a", "b")

    class Slow(Scene):
        def ask(self, call: InferenceCall, target: Target, context: CallContext) -> EventStream:
            if self.calls:
                assert may_answer.wait(20)
            return super().ask(call, target, context)

    events = Slow(Source(piece("a"), CUT), second).start(silence=0.01)
    next(events)
    next(events)
    pending = events._pending
    assert pending is not None
    events.close()
    may_answer.set()
    pending.wait(20)
    for _ in range(1000):
        if second.is_closed:
            break
        threading.Event().wait(0.01)
    assert second.is_closed


def test_a_client_that_left_is_no_break() -> None:
    scene = Scene(Source(piece("a"), CallCancelledError()), whole("a"))
    with pytest.raises(CallCancelledError):
        scene.read()
    assert len(scene.calls) == 1


@pytest.mark.parametrize(
    ("payload", "possible"),
    [
        ({}, True),
        ({"n": 1, "tools": []}, True),
        ({"n": 2}, False),
        ({"logprobs": True}, False),
    ],
)
def test_which_chats_can_be_continued(payload: dict[str, Any], *, possible: bool) -> None:
    assert can_continue(InferenceCall("chat/completions", b"", payload, "m")) is possible


@pytest.mark.parametrize(
    ("payload", "possible"),
    [
        ({"prompt": "a"}, True),
        ({"prompt": ["a"]}, False),
        ({"prompt": "a", "echo": True}, False),
        ({"prompt": "a", "suffix": "b"}, False),
        ({"prompt": "a", "best_of": 2}, False),
    ],
)
def test_which_completions_can_be_continued(payload: dict[str, Any], *, possible: bool) -> None:
    assert can_continue(InferenceCall("completions", b"", payload, "m")) is possible


def test_how_models_are_asked_to_go_on() -> None:
    chat = InferenceCall("chat/completions", b"", {"messages": [], "stream": True}, "m")
    switched = resume_request(chat, "so far", "continue_final_message")
    assert switched is not None
    assert switched.payload["continue_final_message"] is True
    assert switched.payload["add_generation_prompt"] is False
    assert resume_request(chat, "so far", None) is None
    text = resume_request(InferenceCall("completions", b"", {"prompt": "a"}, "m"), " b", None)
    assert text is not None
    assert text.payload["prompt"] == "a b"
