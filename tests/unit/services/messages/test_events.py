"""Deltas as events and as a complete message of the Messages API, checked as the strictest client does."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from openai_compat.core.errors import UpstreamTruncatedError
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.tokens import TokenCounter
from openai_compat.core.types import ChatDelta, ChatRequest, ToolCallDelta, Usage
from openai_compat.services.chat import ChatAnswer
from openai_compat.services.messages.blocks import Content
from openai_compat.services.messages.events import EventWriter, encode_message
from openai_compat.services.messages.objects import new_message
from openai_compat.services.messages.tools import to_tool_map
from tests.support.messages_events import Event, parse_events, read_message

LONG_NAME = "mcp__" + "x" * 80
TOOLS = to_tool_map([{"name": "add", "input_schema": {}}, {"name": LONG_NAME, "input_schema": {}}])
STOPS = ["END"]
STOP = ChatDelta(finish_reason="stop")
CALLS = ChatDelta(finish_reason="tool_calls")
SIGNED = {"type": "reasoning.text", "text": "Hm", "signature": "sig"}


def call(index: int, arguments: str = "", id: str | None = None, name: str | None = None) -> ChatDelta:
    return ChatDelta(tool_calls=(ToolCallDelta(index, arguments, id, name),))


def blocks_of(*deltas: ChatDelta | Heartbeat, interval: float = 0.0) -> Iterable[bytes | Heartbeat]:
    request = ChatRequest("m", [{"role": "user", "content": "Hi"}], is_streamed=True)
    answer = ChatAnswer(request, iter(deltas), TokenCounter(), is_legacy=False)
    return encode_message(new_message("m", 5), EventWriter(TOOLS, STOPS), answer, answer.deltas(), interval)


def stream(*deltas: ChatDelta) -> list[Event]:
    return parse_events(b"".join(block for block in blocks_of(*deltas) if isinstance(block, bytes)))


def both_of(*deltas: ChatDelta) -> Event:
    """Return the message of a stream, whose blocks and end must be those of the complete message."""
    content = Content(TOOLS, STOPS)
    for delta in deltas:
        content.add(delta)
    streamed = read_message(stream(*deltas))
    assert content.to_objects() == streamed["content"]
    assert content.to_ending().items() <= streamed.items()
    return streamed


def test_a_text_keeps_its_first_delta() -> None:
    events = stream(ChatDelta("Hel"), ChatDelta('lo "é" \ud83d'), STOP)
    assert [event["type"] for event in events] == [
        "message_start", "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    message = read_message(events)
    assert message["content"] == [{"type": "text", "text": 'Hello "é" ?'}]
    assert (message["stop_reason"], message["stop_sequence"]) == ("end_turn", None)
    assert message["id"].startswith("msg_")


def test_thinking_text_and_calls_are_separate_blocks() -> None:
    message = both_of(
        ChatDelta(reasoning="H"), ChatDelta(reasoning="m"), ChatDelta("Yes", reasoning="!"),
        call(0, '{"a":', "call_1", "add"), call(0, "1}"), CALLS,
    )  # fmt: skip
    assert message["content"] == [
        {"type": "thinking", "thinking": "Hm!", "signature": ""},
        {"type": "text", "text": "Yes"},
        {"type": "tool_use", "id": "call_1", "name": "add", "input": {"a": 1}},
    ]
    assert message["stop_reason"] == "tool_use"


def test_empty_lists_of_calls_and_empty_texts_make_no_block() -> None:
    message = both_of(ChatDelta("", tool_calls=()), ChatDelta("Hi", tool_calls=()), ChatDelta(""), STOP)
    assert message["content"] == [{"type": "text", "text": "Hi"}]


def test_the_arguments_of_the_delta_that_opens_a_call_are_kept() -> None:
    message = both_of(call(0, '{"a":1}', "call_1", "add"), CALLS)
    assert message["content"] == [{"type": "tool_use", "id": "call_1", "name": "add", "input": {"a": 1}}]


def test_interleaved_calls_are_sent_one_after_the_other() -> None:
    message = both_of(
        call(0, '{"a":', "call_1", "add"), call(1, '{"b":', "call_2", "add"), call(0, "1}"),
        call(2, "{}", "call_3", "c"), call(1, "2}"), CALLS,
    )  # fmt: skip
    assert [(block["id"], block["input"]) for block in message["content"]] == [
        ("call_1", {"a": 1}), ("call_2", {"b": 2}), ("call_3", {}),
    ]  # fmt: skip


def test_a_call_after_a_complete_one_is_streamed_at_once() -> None:
    blocks = list(blocks_of(call(0, "{}", "call_1", "add"), call(1, '{"b"', "call_2", "add"), call(1, ":2}"), CALLS))
    assert b'"partial_json":":2}"' in blocks[3]  # after the start of the message and the two calls


def test_a_text_between_calls_keeps_its_place() -> None:
    message = both_of(call(0, '{"a":', "call_1", "add"), ChatDelta("so"), call(0, "1}"), ChatDelta(" on"), CALLS)
    assert [block["type"] for block in message["content"]] == ["tool_use", "text"]
    assert message["content"][1]["text"] == "so on"


def test_a_call_without_arguments_gets_an_empty_object() -> None:
    assert both_of(call(0, "", "call_1", "add"), CALLS)["content"][0]["input"] == {}


def test_a_call_without_an_id_gets_one_and_a_long_name_comes_back() -> None:
    chat_name = TOOLS.definitions[1]["function"]["name"]
    (block,) = read_message(stream(call(0, "{}", None, chat_name), CALLS))["content"]
    assert (block["name"], block["id"][:6]) == (LONG_NAME, "toolu_")


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_control_characters_in_arguments_are_escaped(size: int) -> None:
    """Local models write them, and the clients of Anthropic end the stream with an error."""
    arguments = '{\n\t"a\\\\": "x\n\x01\\"\ty", "b": "\\\\\n"\r\n}'
    parts = [arguments[start : start + size] for start in range(0, len(arguments), size)]
    message = both_of(call(0, "", "call_1", "add"), *(call(0, part) for part in parts), CALLS)
    assert message["content"][0]["input"] == {"a\\": 'x\n\x01"\ty', "b": "\\\n"}


def test_arguments_without_control_characters_in_strings_are_sent_as_they_are() -> None:
    arguments = '{\n  "a": "\\n \\u000a",\r\n  "b": 1\n}'
    events = stream(call(0, arguments, "call_1", "add"), CALLS)
    assert [event["delta"]["partial_json"] for event in events if "_block_delta" in event["type"]] == [arguments]


@pytest.mark.parametrize("arguments", ['{"a":', "[1]", '"text"'])
def test_arguments_that_are_no_object_reach_the_tool_as_they_are(arguments: str) -> None:
    content = Content(TOOLS, STOPS)
    content.add(call(0, arguments, "call_1", "add"))
    assert content.to_objects()[0]["input"] == {"__unparsedToolInput": arguments}
    (delta,) = (event for event in stream(call(0, arguments, "c", "add"), CALLS) if "_block_delta" in event["type"])
    assert delta["delta"]["partial_json"] == arguments


@pytest.mark.parametrize(
    ("deltas", "reason"),
    [
        ([ChatDelta("x"), STOP], "end_turn"),
        ([ChatDelta("x", finish_reason="length")], "max_tokens"),
        ([ChatDelta("x", finish_reason="content_filter")], "refusal"),
        ([ChatDelta("x", finish_reason="tool_calls")], "end_turn"),
        ([ChatDelta("x", finish_reason="function_call")], "end_turn"),
        ([call(0, "{}", "c", "add"), STOP], "tool_use"),
        ([call(0, "{}", "c", "add"), ChatDelta(finish_reason="function_call")], "tool_use"),
        ([call(0, "{}", "c", "add"), ChatDelta(finish_reason="length")], "max_tokens"),
        ([ChatDelta("x"), ChatDelta(finish_reason="stop", stop_sequence="END")], "stop_sequence"),
        ([ChatDelta("x"), ChatDelta(finish_reason="stop", stop_sequence="eos")], "end_turn"),
        ([ChatDelta(refusal="No."), STOP], "refusal"),
    ],
)
def test_the_reason_of_the_end(deltas: list[ChatDelta], reason: str) -> None:
    message = both_of(*deltas)
    assert message["stop_reason"] == reason
    assert message["stop_sequence"] == ("END" if reason == "stop_sequence" else None)


def test_a_refusal_is_shown_and_explained() -> None:
    message = both_of(ChatDelta(refusal="I "), ChatDelta(refusal="can't."), STOP)
    assert message["content"] == [{"type": "text", "text": "I can't."}]
    assert message["stop_details"] == {"type": "refusal", "category": None, "explanation": "I can't."}


def test_signatures_end_their_thinking() -> None:
    message = both_of(
        ChatDelta(reasoning="Hm"), ChatDelta(reasoning_details=(SIGNED,)), ChatDelta(reasoning="More"),
        ChatDelta(reasoning_details=({**SIGNED, "text": "", "signature": "sig2"},)), ChatDelta("Yes"), STOP,
    )  # fmt: skip
    assert message["content"][:2] == [
        {"type": "thinking", "thinking": "Hm", "signature": "sig"},
        {"type": "thinking", "thinking": "More", "signature": "sig2"},
    ]


def test_a_signature_that_arrives_late_repeats_no_thinking() -> None:
    deltas = [ChatDelta(reasoning="Hm"), ChatDelta("Yes"), ChatDelta(reasoning_details=(SIGNED,)), STOP]
    content = Content(TOOLS, STOPS)
    for delta in deltas:
        content.add(delta)
    assert content.to_objects()[0] == {"type": "thinking", "thinking": "Hm", "signature": "sig"}
    assert [block["type"] for block in read_message(stream(*deltas))["content"]] == ["thinking", "text"]


def test_thinking_that_arrives_complete_keeps_each_signature() -> None:
    """The reasoning of a complete answer is one text, and its details have the parts that were signed."""
    other = {"type": "reasoning.text", "text": "More", "signature": "sig2"}
    encrypted = {"type": "reasoning.encrypted", "data": "secret"}
    message = both_of(ChatDelta("Yes", reasoning="HmMore", reasoning_details=(SIGNED, encrypted, other)), STOP)
    assert message["content"] == [
        {"type": "thinking", "thinking": "Hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "secret"},
        {"type": "thinking", "thinking": "More", "signature": "sig2"},
        {"type": "text", "text": "Yes"},
    ]


def test_usage_is_estimated_at_the_start_and_true_at_the_end() -> None:
    events = stream(ChatDelta("x"), ChatDelta(finish_reason="stop", usage=Usage(100, 7, 60, 3, 15)))
    assert events[0]["message"]["usage"]["input_tokens"] == 5
    assert events[-2]["usage"] == {
        "input_tokens": 25, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 15, "output_tokens": 7,
        "output_tokens_details": {"thinking_tokens": 3},
    }  # fmt: skip


def test_usage_that_a_model_reports_first_is_at_the_start() -> None:
    events = stream(ChatDelta("x", usage=Usage(100, 1, 60)), STOP)
    assert events[0]["message"]["usage"]["input_tokens"] == 40


def test_an_answer_that_breaks_off_has_no_end() -> None:
    events = iter(blocks_of(ChatDelta("x")))
    sent = b"".join(block for block in (next(events), next(events)) if isinstance(block, bytes))
    with pytest.raises(UpstreamTruncatedError):
        next(events)
    assert [event["type"] for event in parse_events(sent)][-1] == "content_block_delta"


def test_waiting_calls_count_as_idle_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("openai_compat.services.sse_events.monotonic", lambda: float(next(clock)))
    deltas = [call(0, '{"a":', "c", "add"), call(1, "{", "d", "add"), *[call(1, " ")] * 4, call(1, "}"), call(0, "1}")]
    blocks = list(blocks_of(*deltas, CALLS, interval=2.0))
    assert blocks.count(HEARTBEAT) == 2
    message = read_message(parse_events(b"".join(block for block in blocks if isinstance(block, bytes))))
    assert [json.dumps(block["input"]) for block in message["content"]] == ['{"a": 1}', "{}"]
