"""What each format of `/ask` makes of deltas that the echo model never yields: thoughts, refusals, tools, silence."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import ChatDelta, ToolCallDelta
from openai_compat.web.routes.ask import encoders as ask_formats
from openai_compat.web.routes.ask.encoders import (
    SSEEncoder,
    StreamEncoder,
    TextEncoder,
    UIMessageEncoder,
    encode_deltas,
)

THOUGHT = ChatDelta(reasoning="Hm.")
SAID = ChatDelta("Hello")
STOP = ChatDelta(finish_reason="stop")


def write(
    writer: StreamEncoder, *deltas: ChatDelta | Heartbeat, heartbeat_interval: float = 0.0
) -> list[bytes | Heartbeat]:
    return [block for block in encode_deltas(writer, iter(deltas), heartbeat_interval) if block != b""]


def values(blocks: Iterable[bytes | Heartbeat]) -> list[Any]:
    body = b"".join(block for block in blocks if isinstance(block, bytes)).decode()
    return [json.loads(line[6:]) for line in body.split("\n\n") if line and line != "data: [DONE]"]


def ui(*deltas: ChatDelta | Heartbeat) -> list[Any]:
    """The chunks between the step's begin and its end."""
    chunks = values(write(UIMessageEncoder("msg_1"), *deltas))
    assert chunks[:2] == [{"type": "start", "messageId": "msg_1"}, {"type": "start-step"}]
    assert [chunk["type"] for chunk in chunks[-2:]] == ["finish-step", "finish"]
    return chunks[2:-2]


def test_ui_shows_thoughts_in_parts_of_their_own() -> None:
    assert ui(THOUGHT, THOUGHT, SAID, STOP) == [
        {"type": "reasoning-start", "id": "1"},
        {"type": "reasoning-delta", "id": "1", "delta": "Hm."},
        {"type": "reasoning-delta", "id": "1", "delta": "Hm."},
        {"type": "reasoning-end", "id": "1"},
        {"type": "text-start", "id": "2"},
        {"type": "text-delta", "id": "2", "delta": "Hello"},
        {"type": "text-end", "id": "2"},
    ]


def test_thoughts_are_not_part_of_the_plain_answer() -> None:
    assert [event["content"] for event in values(write(SSEEncoder(), THOUGHT, SAID, STOP))] == ["Hello", ""]
    assert write(TextEncoder(), THOUGHT, SAID, STOP) == [b"Hello"]


def test_a_refusal_is_said() -> None:
    refused = ChatDelta(refusal="I may not.")
    assert write(TextEncoder(), refused, STOP) == [b"I may not."]
    assert values(write(SSEEncoder(), refused, STOP))[0]["content"] == "I may not."
    assert ui(refused, STOP)[1]["delta"] == "I may not."


def test_ui_gives_a_tool_call_piece_by_piece_and_as_a_whole() -> None:
    calls = [
        ToolCallDelta(0, id="call_1", name="clock"),
        ToolCallDelta(0, '{"city":'),
        ToolCallDelta(1, id="call_2", name="now"),
        ToolCallDelta(0, ' "Rome"}'),
    ]
    assert ui(SAID, ChatDelta(tool_calls=calls), ChatDelta(finish_reason="tool_calls"))[2:] == [
        {"type": "text-end", "id": "1"},
        {"type": "tool-input-start", "toolCallId": "call_1", "toolName": "clock"},
        {"type": "tool-input-delta", "toolCallId": "call_1", "inputTextDelta": '{"city":'},
        {"type": "tool-input-start", "toolCallId": "call_2", "toolName": "now"},
        {"type": "tool-input-delta", "toolCallId": "call_1", "inputTextDelta": ' "Rome"}'},
        {"type": "tool-input-available", "toolCallId": "call_1", "toolName": "clock", "input": {"city": "Rome"}},
        {"type": "tool-input-available", "toolCallId": "call_2", "toolName": "now", "input": {}},
    ]


def test_ui_says_when_a_tools_input_is_no_json() -> None:
    broken = ChatDelta(tool_calls=[ToolCallDelta(0, "{", id="call_1", name="clock")])
    last = ui(broken, ChatDelta(finish_reason="length"))[-1]
    assert (last["type"], last["input"]) == ("tool-input-error", "{")
    assert last["errorText"]


@pytest.mark.parametrize(
    ("reason", "told"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "content-filter"), ("tool_calls", "tool-calls")],
)
def test_ui_has_its_own_words_for_the_end(reason: Any, told: str) -> None:
    chunks = values(write(UIMessageEncoder("msg_1"), SAID, ChatDelta(finish_reason=reason)))
    assert chunks[-1] == {"type": "finish", "finishReason": told}


@pytest.mark.parametrize("writer", [SSEEncoder(), UIMessageEncoder("msg_1")])
def test_a_silence_is_handed_on_to_be_filled(writer: StreamEncoder) -> None:
    assert HEARTBEAT in write(writer, SAID, HEARTBEAT, STOP)


def test_a_model_that_thinks_aloud_is_silent_in_a_format_without_a_place_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(ask_formats, "monotonic", lambda: next(clock))
    blocks = write(SSEEncoder(), *[THOUGHT] * 7, STOP, heartbeat_interval=3)
    assert blocks[:-1] == [HEARTBEAT, HEARTBEAT]


def test_half_a_character_ends_no_stream() -> None:
    assert write(TextEncoder(), ChatDelta("a\ud83c"), STOP) == [b"a?"]
    assert values(write(SSEEncoder(), ChatDelta("a\ud83c"), STOP))[0]["content"] == "a?"
