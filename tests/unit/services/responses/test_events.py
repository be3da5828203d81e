"""Deltas as events of the Responses API, checked as the strictest client does."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pytest

from openai_compat.core.errors import UpstreamTruncatedError
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.tokens import TokenCounter
from openai_compat.core.types import ChatDelta, ChatRequest, TokenLogprob, ToolCallDelta, Usage
from openai_compat.services.chat import ChatAnswer
from openai_compat.services.openai_objects import to_json
from openai_compat.services.responses.events import EventWriter, encode_response
from openai_compat.services.responses.lifecycle import Lifecycle
from openai_compat.services.responses.objects import new_response, to_finished
from openai_compat.services.responses.output import REASONING_TEXT, SUMMARY_TEXT, Output, PartKind
from openai_compat.services.responses.tools import to_tool_map
from tests.support.responses_events import Event, check_events, parse_events

TOOLS = [
    {"type": "function", "name": "add", "parameters": {}},
    {"type": "custom", "name": "patch"},
    {"type": "namespace", "name": "crm", "tools": [{"type": "function", "name": "find"}]},
]
STOP = ChatDelta(finish_reason="stop")


def new_lifecycle(*, begins_early: bool = True) -> Lifecycle:
    return Lifecycle(new_response("resp_1", "m", {}, is_stored=False), begins_early=begins_early)


def stream(
    deltas: Iterable[ChatDelta | Heartbeat], reasoning: PartKind = REASONING_TEXT, *, seals: bool = False
) -> Iterator[bytes | Heartbeat]:
    lifecycle = new_lifecycle()
    seal = (lambda text, _details: f"sealed {text}") if seals else None
    writer = EventWriter(lifecycle, to_tool_map(TOOLS), reasoning, seal, shows_logprobs=True)

    def finish() -> bytes:
        response = to_finished(lifecycle.response, writer.to_objects(), writer.finish_reason, Usage(3, 4, 1, 2))
        return lifecycle.end(response["status"], to_json(response))

    return encode_response(writer, lifecycle, iter(deltas), finish, 0.0)


def events_of(*deltas: ChatDelta, **options: Any) -> list[Event]:
    return parse_events(b"".join(block for block in stream(deltas, **options) if isinstance(block, bytes)))


def types_of(events: list[Event]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_a_text() -> None:
    events = events_of(ChatDelta("Hel"), ChatDelta('lo "é" \ud83d'), STOP)
    response = check_events(events)
    assert types_of(events) == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    (item,) = response["output"]
    assert item["content"] == [{"type": "output_text", "text": 'Hello "é" ?', "annotations": [], "logprobs": []}]
    assert (item["status"], response["status"], response["usage"]["total_tokens"]) == ("completed", "completed", 7)
    assert events[4]["logprobs"] == []


def test_line_ends_are_kept() -> None:
    (item,) = check_events(events_of(ChatDelta("a\r"), ChatDelta("\nb\r\n"), STOP))["output"]
    assert item["content"][0]["text"] == "a\r\nb\r\n"


def test_a_long_answer_takes_little_more_memory_than_its_text() -> None:
    """It is kept twice, for the last event and to be counted if the model reports no usage."""
    lifecycle = new_lifecycle()
    deltas = (ChatDelta(f" {number:07}") for number in range(10_000))
    answer = ChatAnswer(ChatRequest("m", []), deltas, TokenCounter(), is_legacy=False)
    writer = EventWriter(lifecycle, to_tool_map([]), REASONING_TEXT, None, shows_logprobs=False)
    events = encode_response(writer, lifecycle, answer.deltas(), bytes, 0.0)
    tracemalloc.start()
    try:
        assert sum(1 for _ in islice(events, 10_000)) == 10_000
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken < 4 * 8 * 10_000


def test_reasoning_as_a_summary_precedes_the_text() -> None:
    events = events_of(ChatDelta(reasoning="Hm"), ChatDelta(reasoning="m."), ChatDelta("Yes"), STOP,
                       reasoning=SUMMARY_TEXT)  # fmt: skip
    reasoning, message = check_events(events)["output"]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "Hmm."}]
    assert message["content"][0]["text"] == "Yes"
    assert types_of(events)[3:7] == [
        "reasoning_summary_part.added", "reasoning_summary_text.delta", "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
    ]  # fmt: skip


def test_reasoning_as_text_can_be_sealed() -> None:
    reasoning, _ = check_events(events_of(ChatDelta(reasoning="Hm"), ChatDelta("Yes"), STOP, seals=True))["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Hm"}]
    assert (reasoning["summary"], reasoning["encrypted_content"]) == ([], "sealed Hm")


def test_calls_that_a_model_writes_at_once_are_kept_apart() -> None:
    events = events_of(
        ChatDelta("I add."),
        ChatDelta(tool_calls=(ToolCallDelta(0, id="call_1", name="add"), ToolCallDelta(1, id="call_2", name="add"))),
        ChatDelta(tool_calls=(ToolCallDelta(1, '{"b"'), ToolCallDelta(0, '{"a"'))),
        ChatDelta(tool_calls=(ToolCallDelta(0, ":1}"), ToolCallDelta(1, ":2}"))),
        ChatDelta(finish_reason="tool_calls"),
    )
    message, first, second = check_events(events)["output"]
    assert message["type"] == "message"
    assert (first["call_id"], first["name"], first["arguments"]) == ("call_1", "add", '{"a":1}')
    assert (second["call_id"], second["arguments"]) == ("call_2", '{"b":2}')
    assert first["id"] != first["call_id"]


def test_a_call_without_arguments_has_an_empty_object() -> None:
    events = events_of(ChatDelta(tool_calls=(ToolCallDelta(0, "", "call_1", "add"),)), STOP)
    (item,) = check_events(events)["output"]
    assert item["arguments"] == "{}"
    texts = [event.get("delta", event.get("arguments")) for event in events if "arguments" in event["type"]]
    assert texts == ["{}", "{}"], "one delta and the end"


def test_a_call_that_was_cut_before_its_arguments_has_none() -> None:
    call = ToolCallDelta(0, "", "call_1", "add")
    (item,) = check_events(events_of(ChatDelta(tool_calls=(call,)), ChatDelta(finish_reason="length")))["output"]
    assert (item["status"], item["arguments"]) == ("incomplete", "")


def test_a_custom_tool_gets_its_text() -> None:
    events = events_of(
        ChatDelta(tool_calls=(ToolCallDelta(0, '{"inp', "call_1", "patch"),)),
        ChatDelta(tool_calls=(ToolCallDelta(0, 'ut": "a\\nb"}'),)),
        ChatDelta(finish_reason="tool_calls"),
    )
    (item,) = check_events(events)["output"]
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "patch", "a\nb")
    deltas = [event["delta"] for event in events if event["type"] == "response.custom_tool_call_input.delta"]
    assert deltas == ["a\nb"]


def test_a_call_of_a_namespace_has_its_name_and_the_namespace() -> None:
    call = ToolCallDelta(0, "{}", "call_1", "crm__find")
    (item,) = check_events(events_of(ChatDelta(tool_calls=(call,)), ChatDelta(finish_reason="tool_calls")))["output"]
    assert (item["name"], item["namespace"]) == ("find", "crm")


def test_a_refusal() -> None:
    events = events_of(ChatDelta(refusal="I can"), ChatDelta(refusal="not."), STOP)
    response = check_events(events)
    assert response["output"][0]["content"] == [{"type": "refusal", "refusal": "I cannot."}]
    assert "refusal.done" in types_of(events)
    assert response["status"] == "completed"


@pytest.mark.parametrize(
    ("reason", "expected"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_cut_by_a_limit_is_incomplete(reason: Any, expected: str) -> None:
    events = events_of(ChatDelta("Once upon"), ChatDelta(finish_reason=reason))
    response = check_events(events)
    assert events[-1]["type"] == "response.incomplete"
    assert response["incomplete_details"] == {"reason": expected}
    assert response["output"][0]["status"] == "incomplete"


def test_an_empty_answer_still_has_a_message() -> None:
    (item,) = check_events(events_of(STOP))["output"]
    assert item["content"][0]["text"] == ""


def test_annotations_and_logprobs() -> None:
    cited = {
        "type": "url_citation",
        "url_citation": {"url": "http://x", "title": "X", "start_index": 0, "end_index": 1},
    }
    logprobs = (TokenLogprob("a", -0.5, (("a", -0.5), ("b", float("-inf")))),)
    events = events_of(ChatDelta("a", logprobs=logprobs), ChatDelta(annotations=({"type": "file"}, cited)), STOP)
    part = check_events(events)["output"][0]["content"][0]
    assert part["annotations"] == [{"type": "url_citation", **cited["url_citation"]}]
    assert part["logprobs"][0]["top_logprobs"][1]["token"] == "b"
    assert "output_text.annotation.added" in types_of(events)
    delta = next(event for event in events if event["type"] == "response.output_text.delta")
    assert delta["logprobs"] == part["logprobs"]


def test_the_same_deltas_give_the_same_items_without_a_stream() -> None:
    deltas = [
        ChatDelta(reasoning="Hm"),
        ChatDelta("a"),
        ChatDelta(tool_calls=(ToolCallDelta(0, "{}", "call_1", "add"),)),
        STOP,
    ]
    output = Output(to_tool_map(TOOLS), REASONING_TEXT, None, shows_logprobs=False)
    for delta in deltas:
        output.add(delta)
    output.finish()
    streamed = check_events(events_of(*deltas))["output"]
    assert [{**item, "id": ""} for item in output.to_objects()] == [{**item, "id": ""} for item in streamed]


def test_a_failure_within_the_stream_is_an_error_and_a_failed_response() -> None:
    lifecycle = new_lifecycle()
    events = parse_events(lifecycle.begin() + lifecycle.fail(UpstreamTruncatedError("It broke off.")))
    assert [event["type"] for event in events[2:]] == ["error", "response.failed"]
    assert events[2]["error"] == {
        "message": "It broke off.", "type": "upstream_error", "param": None, "code": "upstream_cut",
    }  # fmt: skip
    assert events[3]["response"]["error"] == {"code": "upstream_cut", "message": "It broke off."}
    assert [event["sequence_number"] for event in events] == [0, 1, 2, 3]


def test_a_failure_before_the_first_event_begins_the_stream() -> None:
    events = parse_events(new_lifecycle().fail(UpstreamTruncatedError("It broke off.")))
    assert types_of(events) == ["created", "in_progress", "error", "failed"]


def test_keep_alives_are_numbered_events() -> None:
    lifecycle = new_lifecycle()
    events = parse_events(lifecycle.keep_alive() + lifecycle.keep_alive() + lifecycle.begin())
    assert types_of(events) == ["created", "in_progress", "in_progress"]
    assert [event["sequence_number"] for event in events] == [0, 1, 2]


def test_keep_alives_are_comments_while_an_upstream_may_start_the_stream() -> None:
    assert new_lifecycle(begins_early=False).keep_alive().startswith(b":")


def test_heartbeats_pass() -> None:
    assert HEARTBEAT in list(stream([HEARTBEAT, ChatDelta("a"), STOP]))


def test_long_silent_deltas_count_as_a_gap() -> None:
    """The arguments of a custom tool have no events until they are complete."""
    lifecycle = new_lifecycle()
    writer = EventWriter(lifecycle, to_tool_map(TOOLS), REASONING_TEXT, None, shows_logprobs=False)
    deltas = [ChatDelta(tool_calls=(ToolCallDelta(0, "x", "call_1", "patch"),)) for _ in range(4)]
    blocks = list(encode_response(writer, lifecycle, iter(deltas), lambda: {"status": "completed"}, 1e-9))
    assert HEARTBEAT in blocks
