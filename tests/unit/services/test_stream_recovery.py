"""Mid-stream recovery, in which another target continues a broken stream."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from itertools import count, zip_longest
from typing import Any

import pytest

from openai_compat.backends.base import Backend, NoOptions
from openai_compat.core.errors import (
    CallCancelledError,
    ServerShuttingDownError,
    UnsupportedParameterError,
    UpstreamStatusError,
    UpstreamTruncatedError,
)
from openai_compat.core.settings import ModelConfig, RoutePolicy
from openai_compat.core.streams import HEARTBEAT
from openai_compat.core.types import CallContext, ChatDelta, ToolCallDelta
from openai_compat.routing.circuit_breaker import CircuitBreaker
from openai_compat.routing.failover import FailoverExecutor
from openai_compat.routing.load_balancer import WeightedRandom
from openai_compat.routing.route import RoutePlan, Target
from openai_compat.services import stream_recovery
from openai_compat.services.continuation import Continuation, DivergedError
from openai_compat.services.event_stream import EventStream
from openai_compat.services.inference_call import InferenceCall
from openai_compat.services.prefill import is_single_text
from openai_compat.services.sse_events import DONE, to_event
from openai_compat.services.stream_recovery import RecoveringStream
from openai_compat.state.memory import MemoryStore
from tests.support.scripted_response import ScriptedResponse
from tests.support.sse_relay import SSERelay
from tests.support.waiting import wait_until
from tests.unit.routing.test_failover import RESOURCES

CUT = UpstreamTruncatedError("cut")


def chunk(content: str | None = None, *, id_: str = "1", finish: str | None = None, **delta: Any) -> bytes:
    shown = {**({"content": content} if content is not None else {}), **delta}
    choice = {"index": 0, "delta": shown, "finish_reason": finish}
    return to_event({"id": id_, "created": int(id_), "model": f"m{id_}", "choices": [choice]})


class RecoveryScenario:
    """A streamed call whose targets answer with the given responses, in turn. `calls` are the calls they received."""

    def __init__(
        self,
        *sources: ScriptedResponse | Exception,
        prefill: str | None = None,
        windows: Sequence[int | None] = (),
        **payload: Any,
    ) -> None:
        self.sources = list(sources)
        self.calls: list[InferenceCall] = []
        self.reported: list[tuple[str | None, int]] = []
        names = [f"t{number}" for number in range(len(sources))]
        entries = [
            ModelConfig(name, "echo", assistant_prefill=prefill, context_window=window)
            for name, window in zip_longest(names, windows)
        ]
        targets = [Target(entry.name, Backend(entry, NoOptions(), RESOURCES)) for entry in entries]
        policy = RoutePolicy(retries=0, cooldown=0, on_stream_break="continue")
        health = CircuitBreaker(MemoryStore(), names)
        self.plan = RoutePlan(policy, {"t0": targets[0]}, targets[1:], WeightedRandom({"t0": 1}), health)
        body = {"messages": [{"role": "user", "content": "q"}], "stream": True, **payload}
        self.call = InferenceCall("chat/completions", json.dumps(body).encode(), body, "m")
        self.continuation = Continuation(lambda text, model: len(text.split()))

    def open_stream(self, target: Target, context: CallContext) -> EventStream:
        self.calls.append(self.continuation.to_call(self.call, target.model))
        source = self.sources.pop(0)
        if isinstance(source, Exception):
            raise source
        relay = SSERelay(source, strip_usage=False, chunk_filter=self.continuation.filter_chunk)
        relay.prime()
        return relay

    def start(self, heartbeat_interval: float = 0.0) -> RecoveringStream:
        self.context = context = CallContext("req", heartbeat_interval=heartbeat_interval)
        may_repeat = not self.call.payload.get("store")
        self.failover: FailoverExecutor[EventStream] = FailoverExecutor(self.plan, context, may_repeat=may_repeat)
        return RecoveringStream(self.failover, self.continuation, self.open_stream, context, on_routed=self.record)

    def record(self, failover: FailoverExecutor[Any]) -> None:
        self.reported.append((failover.target and failover.target.model, failover.attempts))

    def read(self) -> tuple[str, list[dict[str, Any]]]:
        """Return the text and the chunks, or raise the error of the stream."""
        received = b"".join(block for block in self.start() if isinstance(block, bytes))
        data = [line[6:] for line in received.decode().splitlines() if line.startswith("data: ")]
        assert data.pop() == "[DONE]"
        chunks = [json.loads(line) for line in data]
        return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks), chunks


def complete(*texts: str, id_: str = "2") -> ScriptedResponse:
    return ScriptedResponse(*(chunk(text, id_=id_) for text in ("", *texts)), chunk(id_=id_, finish="stop") + DONE)


@pytest.mark.parametrize(
    "texts", [["one two", " three"], ["one ", "two three"], ["one two three"], list("one two three")]
)
def test_text_that_was_sent_is_not_sent_again_however_it_is_split(texts: list[str]) -> None:
    scenario = RecoveryScenario(ScriptedResponse(chunk("one "), chunk("two"), CUT), complete(*texts))
    text, chunks = scenario.read()
    assert text == "one two three"
    assert {(chunk["id"], chunk["created"]) for chunk in chunks} == {("1", 1)}
    assert chunks[-1]["model"] == "m2"


def test_a_model_with_prefill_is_asked_for_the_rest_only() -> None:
    scenario = RecoveryScenario(
        ScriptedResponse(chunk("one "), chunk("two"), CUT), complete(" three"), prefill="prefix"
    )
    assert scenario.read()[0] == "one two three"
    assert scenario.calls[-1].payload["messages"][-1] == {"role": "assistant", "content": "one two", "prefix": True}
    assert json.loads(scenario.calls[-1].body) == scenario.calls[-1].payload


def test_a_model_that_refuses_prefill_is_asked_from_the_start() -> None:
    refusal = UpstreamStatusError("no prefill", upstream_status=400, type_="invalid_request_error")
    scenario = RecoveryScenario(
        ScriptedResponse(chunk("one "), CUT), refusal, complete("one ", "two"), prefill="message"
    )
    assert scenario.read()[0] == "one two"
    assert scenario.calls[-1] is scenario.call


@pytest.mark.parametrize(
    "second",
    [
        complete("one twa"),
        complete("one"),
        complete("One two three"),
        CUT,
        ScriptedResponse(chunk("one ", id_="2"), CUT),
        ScriptedResponse(chunk("one ", id_="2"), DONE),
        ScriptedResponse(chunk("one ", id_="2") + DONE),
    ],
    ids=["differs", "shorter", "differs at once", "fails", "breaks before", "only an end mark", "end mark at once"],
)
def test_a_break_that_cannot_be_continued_is_an_error(second: ScriptedResponse | Exception) -> None:
    with pytest.raises(UpstreamTruncatedError):
        RecoveryScenario(ScriptedResponse(chunk("one two"), CUT), second).read()


@pytest.mark.parametrize(
    "second",
    [
        complete("One two"),
        complete("one", " twa"),
        complete("one"),
        ScriptedResponse(chunk("one", id_="2"), DONE),
        ScriptedResponse(chunk("one", id_="2", tool_calls=[{"index": 0}])),
    ],
    ids=["differs at once", "differs", "shorter", "only an end mark", "calls a tool"],
)
def test_a_target_with_another_answer_is_passed_over(second: ScriptedResponse) -> None:
    scenario = RecoveryScenario(ScriptedResponse(chunk("one two"), CUT), second, complete("one two", " three"))
    assert scenario.read()[0] == "one two three"
    assert [attempt.error for attempt in scenario.context.attempts] == ["upstream_cut", "answer_diverged", None]


def test_a_break_that_cannot_be_continued_keeps_the_upstreams_words() -> None:
    event = to_event({"error": {"message": "Model overloaded", "type": "x", "code": 503}})
    for second in (complete("other"), CUT):
        with pytest.raises(UpstreamStatusError, match="Model overloaded"):
            RecoveryScenario(ScriptedResponse(chunk("one two"), event), second).read()


@pytest.mark.parametrize(
    "event",
    [
        chunk(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": ""}}]),
        chunk(reasoning_content="hm"),
        chunk(refusal="no"),
        chunk("all", finish="stop"),
        to_event({"choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": "all"}]}}]}),
    ],
    ids=["tool call", "reasoning", "refusal", "after the finish", "list of parts"],
)
def test_only_plain_text_is_continued(event: bytes) -> None:
    scenario = RecoveryScenario(ScriptedResponse(chunk("a"), event, CUT), complete("a b"))
    with pytest.raises(UpstreamTruncatedError):
        scenario.read()
    assert len(scenario.calls) == 1


def test_an_error_event_is_a_break_and_the_events_before_it_are_sent() -> None:
    error = to_event({"error": {"message": "m", "type": "server_error", "param": None, "code": None}})
    scenario = RecoveryScenario(ScriptedResponse(chunk("one ") + error), complete("one ", "two"))
    assert scenario.read()[0] == "one two"


def test_an_error_event_about_the_request_is_not_routed_around() -> None:
    error = to_event({"error": {"message": "m", "type": "x", "param": None, "code": "content_policy_violation"}})
    scenario = RecoveryScenario(ScriptedResponse(chunk("one ") + error), complete("one ", "two"))
    with pytest.raises(UpstreamStatusError):
        scenario.read()
    assert len(scenario.calls) == 1


def test_comments_and_heartbeats_pass() -> None:
    response = ScriptedResponse(b": ping\n\n", chunk("a"), HEARTBEAT, chunk(finish="stop") + DONE)
    assert list(RecoveryScenario(response).start()) == [
        b": ping\n\n",
        chunk("a"),
        HEARTBEAT,
        chunk(finish="stop") + DONE,
    ]


def test_the_first_response_is_closed_before_the_next_target_is_asked() -> None:
    first, second = ScriptedResponse(chunk("a"), CUT), complete("a", "b")
    events = RecoveryScenario(first, second).start()
    list(events)
    assert (first.endings, second.endings) == (["closed"], [])
    events.close()
    assert second.endings == ["released"]


def test_heartbeats_are_sent_while_the_next_target_starts() -> None:
    may_start = threading.Event()

    class Slow(RecoveryScenario):
        def open_stream(self, target: Target, context: CallContext) -> EventStream:
            if self.calls:
                assert may_start.wait(20)
            return super().open_stream(target, context)

    events = Slow(ScriptedResponse(chunk("a"), CUT), complete("a", "b")).start(heartbeat_interval=0.01)
    assert next(events) == chunk("a")
    assert [next(events) for _ in range(3)] == [HEARTBEAT] * 3
    may_start.set()
    assert b'"b"' in b"".join(block for block in events if isinstance(block, bytes))


def test_a_client_that_disconnects_during_failover_leaves_no_response_open() -> None:
    may_start, second = threading.Event(), complete("a", "b")

    class Slow(RecoveryScenario):
        def open_stream(self, target: Target, context: CallContext) -> EventStream:
            if self.calls:
                assert may_start.wait(20)
            return super().open_stream(target, context)

    events = Slow(ScriptedResponse(chunk("a"), CUT), second).start(heartbeat_interval=0.01)
    next(events)
    next(events)
    pending = events._pending
    assert pending is not None
    events.close()
    may_start.set()
    pending.wait(20)
    wait_until(lambda: second.endings == ["closed"])


@pytest.mark.parametrize("error", [CallCancelledError(), ServerShuttingDownError("down")])
def test_a_client_disconnect_is_not_a_break(error: Exception) -> None:
    scenario = RecoveryScenario(ScriptedResponse(chunk("a"), error), complete("a"))
    with pytest.raises(type(error)):
        scenario.read()
    assert len(scenario.calls) == 1


def test_a_disconnect_while_the_next_target_starts_is_no_error_of_the_upstream() -> None:
    with pytest.raises(CallCancelledError):
        RecoveryScenario(ScriptedResponse(chunk("a"), CUT), CallCancelledError()).read()


def test_a_fallback_that_lacks_a_parameter_does_not_name_itself(caplog: pytest.LogCaptureFixture) -> None:
    refusal = UnsupportedParameterError("'logprobs' is not supported with the model 't1'.", "logprobs")
    with pytest.raises(UpstreamTruncatedError, match="cut") as raised:
        RecoveryScenario(ScriptedResponse(chunk("a"), CUT), refusal).read()
    assert raised.value.__cause__ is refusal
    assert "the model 't1'" in caplog.text


def test_the_route_is_reported_again_after_each_break() -> None:
    second = ScriptedResponse(chunk("a"), chunk("b"), CUT)
    scenario = RecoveryScenario(ScriptedResponse(chunk("a"), CUT), ScriptedResponse(CUT), second, CUT)
    with pytest.raises(UpstreamTruncatedError):
        scenario.read()
    assert scenario.reported == [("t2", 3), ("t3", 4)]


@pytest.mark.parametrize(
    ("payload", "possible"),
    [
        ({}, True),
        ({"n": 1, "tools": []}, True),
        ({"n": 2}, False),
        ({"logprobs": True}, False),
        ({"echo": True}, False),
    ],
)
def test_which_chats_can_be_continued(payload: dict[str, Any], *, possible: bool) -> None:
    assert is_single_text(payload, is_prompt=False) is possible


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
    assert is_single_text(payload, is_prompt=True) is possible


def broken_after(text: str, *, is_prompt: bool = False) -> Continuation:
    """Return the continuation of an answer that broke off after `text`."""
    continuation = Continuation(lambda text, model: len(text), is_prompt=is_prompt)
    continuation.to_request({"prompt": "a"} if is_prompt else {"messages": []}, "m")
    list(continuation.filter_deltas(iter([ChatDelta(text)])))
    continuation.deliver()
    return continuation


def test_requests_for_the_rest_for_each_kind_of_prefill() -> None:
    chat = {"messages": [{"role": "user", "content": "q"}]}
    switched, plain, text = broken_after("so far"), broken_after("so far"), broken_after(" b", is_prompt=True)
    assert switched.ask_for_rest("continue_final_message")
    payload = switched.to_request(chat, "m")
    assert payload["messages"][-1] == {"role": "assistant", "content": "so far"}
    assert (payload["continue_final_message"], payload["add_generation_prompt"]) == (True, False)
    assert not plain.ask_for_rest(None)
    assert text.ask_for_rest(None)
    assert text.to_request({"prompt": "a"}, "m") == {"prompt": "a b"}


def test_a_message_of_the_assistant_that_was_continued_stays_one() -> None:
    continuation = broken_after(" upon a")
    assert continuation.ask_for_rest("message")
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "Once"}]
    assert continuation.to_request({"messages": messages}, "m")["messages"] == [
        messages[0], {"role": "assistant", "content": "Once upon a"},
    ]  # fmt: skip


def test_an_answer_without_a_text_is_asked_for_from_the_start() -> None:
    assert not broken_after("").ask_for_rest("message")


@pytest.mark.parametrize(
    ("sent", "rest"),
    [
        ("one ", ["two"]),
        ("one ", [" two"]),
        ("one ", [" ", "two"]),
        ("one\n\n", ["\n", "\n", "two"]),
        ("one\n", ["\n\ntwo"]),
        ("one", [" two"]),
    ],
)
def test_white_space_at_the_break_is_neither_asked_with_nor_sent_twice(sent: str, rest: list[str]) -> None:
    """Anthropic refuses it, and the templates of many models remove it, so that the model begins with it again."""
    scenario = RecoveryScenario(ScriptedResponse(chunk(sent), CUT), complete(*rest), prefill="message")
    assert scenario.read()[0] == sent + "".join(rest).removeprefix(sent[3:])
    assert scenario.calls[-1].payload["messages"][-1]["content"] == "one"


@pytest.mark.parametrize(
    "payload",
    [
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}},
        {"guided_regex": "one.*"},
        {"stop": "one two stop"},
        {"stop": ["x", " two three"]},
    ],
)
def test_what_applies_to_the_whole_answer_is_asked_for_from_the_start(payload: dict[str, Any]) -> None:
    """A grammar or a stop sequence applies to what a model writes, and not to what it is to continue."""
    scenario = RecoveryScenario(
        ScriptedResponse(chunk("one two"), CUT), complete("one two", "."), prefill="message", **payload
    )
    assert scenario.read()[0] == "one two."
    assert scenario.calls[-1] is scenario.call


@pytest.mark.parametrize("payload", [{"response_format": {"type": "text"}}, {"stop": ["two three", "x"]}])
def test_what_cannot_lie_across_the_break_does_not_hinder_the_continuation(payload: dict[str, Any]) -> None:
    scenario = RecoveryScenario(ScriptedResponse(chunk("one"), CUT), complete(" two"), prefill="message", **payload)
    assert scenario.read()[0] == "one two"
    assert scenario.calls[-1].payload["messages"][-1]["content"] == "one"


@pytest.mark.parametrize("prefill", ["message", None])
def test_the_reasoning_of_the_model_that_completes_a_text_is_left_out(prefill: str | None) -> None:
    """It would divide the text. The Agents SDK takes the last message of a response for the whole answer."""
    continuation = broken_after("one ")
    if not continuation.ask_for_rest(prefill):
        continuation.ask_from_start()
    text = "two" if prefill else "one two"
    thought = ChatDelta(reasoning="hm", reasoning_details=({"type": "reasoning.encrypted", "data": "x"},))
    assert list(continuation.filter_deltas(iter([thought, ChatDelta(text)]))) == [ChatDelta(), ChatDelta("two")]
    assert continuation.is_possible


@pytest.mark.parametrize(("prefill", "rest"), [("message", " two"), (None, "one two")])
def test_the_reasoning_of_the_model_that_completes_a_chat_is_left_out(prefill: str | None, rest: str) -> None:
    thought = chunk(id_="2", role="assistant", reasoning_content="hm")
    second = ScriptedResponse(thought, chunk(rest, id_="2"), chunk(id_="2", finish="stop"), DONE)
    text, chunks = RecoveryScenario(ScriptedResponse(chunk("one"), CUT), second, prefill=prefill).read()
    assert text == "one two"
    assert "hm" not in str(chunks)


def test_an_answer_has_begun_with_the_first_text_that_is_repeated() -> None:
    """The timeout for the first token would otherwise include the repetition of a long text."""
    continuation = broken_after("one two")
    continuation.ask_from_start()
    response = ScriptedResponse(chunk("one "), CUT)
    SSERelay(response, strip_usage=False, chunk_filter=continuation.filter_chunk).prime()


def test_heartbeats_are_sent_while_a_long_text_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_recovery, "monotonic", count(step=0.6).__next__)
    text = "one two three four"
    scenario = RecoveryScenario(ScriptedResponse(chunk(text), CUT), complete(*text, "!"))
    received = list(scenario.start(heartbeat_interval=1))
    heartbeats = [block for block in received if block is HEARTBEAT]
    assert len(heartbeats) >= len(text) // 2 - 1
    assert sum(block.count(b'"content"') for block in received if isinstance(block, bytes)) <= 3


CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_a_call_beside_the_repeated_text_is_kept() -> None:
    """Some servers send both in one event, and those that answer without a stream always do."""
    answer = ScriptedResponse(chunk("one two", tool_calls=[CALL]), chunk(finish="tool_calls") + DONE)
    text, chunks = RecoveryScenario(ScriptedResponse(chunk("one "), CUT), answer).read()
    assert text == "one two"
    assert [call for each in chunks for call in each["choices"][0]["delta"].get("tool_calls", ())] == [CALL]
    call = ToolCallDelta(0, "{}", "call_1", "f")
    continuation = broken_after("one two")
    continuation.ask_from_start()
    deltas = continuation.filter_deltas(iter([ChatDelta("one two", tool_calls=(call,), finish_reason="tool_calls")]))
    assert list(deltas) == [ChatDelta(tool_calls=(call,), finish_reason="tool_calls")]


def test_a_target_with_a_window_that_is_known_to_be_too_small_does_not_hide_the_break() -> None:
    overflow = UpstreamStatusError("too long", upstream_status=400, code="context_length_exceeded", type_="x")
    scenario = RecoveryScenario(overflow, ScriptedResponse(chunk("a"), CUT), complete("a", "b"), windows=[8, 32, 4])
    with pytest.raises(UpstreamTruncatedError):
        scenario.read()


@pytest.mark.parametrize("texts", [["one two", " three"], ["one ", "two ", "three"], ["one two three"]])
def test_deltas_that_repeat_the_beginning_lose_it(texts: list[str]) -> None:
    continuation = broken_after("one two")
    continuation.ask_from_start()
    deltas = continuation.filter_deltas(iter([HEARTBEAT, *map(ChatDelta, texts), ChatDelta(finish_reason="stop")]))
    kept = list(deltas)
    assert kept[0] is HEARTBEAT
    assert "".join(delta.content or "" for delta in kept if isinstance(delta, ChatDelta)) == " three"
    assert kept[-1] == ChatDelta(finish_reason="stop")
    assert len(kept) == len(texts) + 2, "those without a text count as idle time"


@pytest.mark.parametrize(
    "deltas",
    [
        [ChatDelta("one twa")],
        [ChatDelta("one"), ChatDelta(finish_reason="stop")],
        [ChatDelta("one", finish_reason="stop")],
        [ChatDelta(refusal="no"), ChatDelta("one two")],
    ],
    ids=["differs", "shorter", "shorter at once", "refuses"],
)
def test_deltas_of_another_answer_are_refused(deltas: list[ChatDelta]) -> None:
    continuation = broken_after("one two")
    continuation.ask_from_start()
    with pytest.raises(DivergedError):
        list(continuation.filter_deltas(iter(deltas)))


@pytest.mark.parametrize(
    "delta",
    [
        ChatDelta(tool_calls=(ToolCallDelta(0, "{", "call_1", "f"),)),
        ChatDelta(reasoning="hm"),
        ChatDelta(reasoning_details=({"type": "reasoning.encrypted", "data": "x"},)),
        ChatDelta(refusal="no"),
        ChatDelta(annotations=({"type": "url_citation"},)),
        ChatDelta(audio={"data": "x"}),
        ChatDelta("all", finish_reason="stop"),
    ],
)
def test_only_deltas_of_plain_text_are_continued(delta: ChatDelta) -> None:
    continuation = Continuation(lambda text, model: len(text))
    continuation.to_request({"messages": []}, "m")
    assert list(continuation.filter_deltas(iter([ChatDelta("a")]))) == [ChatDelta("a")]
    assert continuation.is_possible
    assert list(continuation.filter_deltas(iter([delta]))) == [delta]
    assert not continuation.is_possible


@pytest.mark.parametrize(
    "cut",
    [
        [chunk("two ") + b'data: {"choices":[{"delta":{"content":"three\n\n'],
        [chunk("two ").removesuffix(b"\n\n")],
    ],
    ids=["broken event", "no end of the event"],
)
def test_a_text_that_the_client_did_not_get_is_asked_for(cut: list[bytes]) -> None:
    """What precedes a broken event in the same block is not sent."""
    rest = complete("two ", "three")
    scenario = RecoveryScenario(ScriptedResponse(chunk("one "), *cut), rest, prefill="message")
    assert scenario.read()[0] == "one two three"
    assert scenario.calls[-1].payload["messages"][-1]["content"] == "one"


@pytest.mark.parametrize(
    ("limits", "reduced"),
    [
        ({"max_tokens": 10}, {"max_tokens": 8}),
        ({"max_completion_tokens": 3}, {"max_completion_tokens": 1}),
        ({"max_tokens": 2, "max_completion_tokens": 1}, {"max_tokens": 1, "max_completion_tokens": 1}),
        ({"max_tokens": None}, {"max_tokens": None}),
    ],
)
def test_the_token_limits_are_reduced_by_what_was_sent(limits: dict[str, Any], reduced: dict[str, Any]) -> None:
    scenario = RecoveryScenario(
        ScriptedResponse(chunk("one "), chunk("two"), CUT), complete(" three"), prefill="message", **limits
    )
    assert scenario.read()[0] == "one two three"
    assert {name: scenario.calls[-1].payload[name] for name in limits} == reduced
    assert {name: json.loads(scenario.calls[-1].body)[name] for name in limits} == reduced


def test_a_model_that_is_asked_from_the_start_gets_the_clients_limit() -> None:
    scenario = RecoveryScenario(ScriptedResponse(chunk("one "), CUT), complete("one ", "two"), max_tokens=10)
    assert scenario.read()[0] == "one two"
    assert scenario.calls[-1].payload["max_tokens"] == 10


def test_a_stream_that_is_stored_is_not_continued() -> None:
    scenario = RecoveryScenario(ScriptedResponse(chunk("one "), CUT), complete("one ", "two"), store=True)
    with pytest.raises(UpstreamTruncatedError):
        scenario.read()
    assert len(scenario.calls) == 1


def test_the_model_that_finished_the_stream_and_all_attempts_are_reported() -> None:
    refusal = UpstreamStatusError("no prefill", upstream_status=400, type_="invalid_request_error")
    scenario = RecoveryScenario(
        ScriptedResponse(chunk("one "), CUT),
        UpstreamTruncatedError("down"),
        refusal,
        complete("one ", "two"),
        prefill="message",
    )
    scenario.read()
    assert scenario.reported == [("t2", 4)]
    assert scenario.failover.tried == ["t0", "t1", "t2"]


def test_a_fallback_that_refuses_does_not_end_the_continuation() -> None:
    refusal = UpstreamStatusError("unknown model", upstream_status=404, type_="invalid_request_error")
    scenario = RecoveryScenario(ScriptedResponse(chunk("one "), CUT), refusal, complete("one ", "two"))
    assert scenario.read()[0] == "one two"
