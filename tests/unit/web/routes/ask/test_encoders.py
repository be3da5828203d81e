"""The stream formats of `/ask` for deltas that the echo model never yields."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import ChatDelta, ToolCallDelta
from openai_compat.services import sse_events
from openai_compat.web.routes.ask.encoders import (
    SSEEncoder,
    StreamEncoder,
    TextEncoder,
    UIMessageEncoder,
    encode_answer,
)

REASONING = ChatDelta(reasoning="Hm.")
TEXT = ChatDelta("Hello")
STOP = ChatDelta(finish_reason="stop")


def encode(
    encoder: StreamEncoder, *deltas: ChatDelta | Heartbeat, heartbeat_interval: float = 0.0
) -> list[bytes | Heartbeat]:
    return [block for block in encode_answer(encoder, iter(deltas), heartbeat_interval) if block != b""]


def values(blocks: Iterable[bytes | Heartbeat]) -> list[Any]:
    body = b"".join(block for block in blocks if isinstance(block, bytes)).decode()
    return [json.loads(line[6:]) for line in body.split("\n\n") if line and line != "data: [DONE]"]


def ui(*deltas: ChatDelta | Heartbeat) -> list[Any]:
    """Return the chunks between the start of the step and its end."""
    chunks = values(encode(UIMessageEncoder("msg_1"), *deltas))
    assert chunks[:2] == [{"type": "start", "messageId": "msg_1"}, {"type": "start-step"}]
    assert [chunk["type"] for chunk in chunks[-2:]] == ["finish-step", "finish"]
    return chunks[2:-2]


def test_ui_streams_reasoning_in_separate_parts() -> None:
    assert ui(REASONING, REASONING, TEXT, STOP) == [
        {"type": "reasoning-start", "id": "1"},
        {"type": "reasoning-delta", "id": "1", "delta": "Hm."},
        {"type": "reasoning-delta", "id": "1", "delta": "Hm."},
        {"type": "reasoning-end", "id": "1"},
        {"type": "text-start", "id": "2"},
        {"type": "text-delta", "id": "2", "delta": "Hello"},
        {"type": "text-end", "id": "2"},
    ]


def test_the_plain_formats_omit_reasoning() -> None:
    assert [event["content"] for event in values(encode(SSEEncoder(), REASONING, TEXT, STOP))] == ["Hello", ""]
    assert encode(TextEncoder(), REASONING, TEXT, STOP) == [b"Hello"]


def test_a_refusal_is_sent_as_text() -> None:
    refused = ChatDelta(refusal="I may not.")
    assert encode(TextEncoder(), refused, STOP) == [b"I may not."]
    assert values(encode(SSEEncoder(), refused, STOP))[0]["content"] == "I may not."
    assert ui(refused, STOP)[1]["delta"] == "I may not."


def test_ui_streams_the_deltas_of_a_tool_call_and_then_its_input() -> None:
    calls = [
        ToolCallDelta(0, id="call_1", name="clock"),
        ToolCallDelta(0, '{"city":'),
        ToolCallDelta(1, id="call_2", name="now"),
        ToolCallDelta(0, ' "Rome"}'),
    ]
    assert ui(TEXT, ChatDelta(tool_calls=calls), ChatDelta(finish_reason="tool_calls"))[2:] == [
        {"type": "text-end", "id": "1"},
        {"type": "tool-input-start", "toolCallId": "call_1", "toolName": "clock"},
        {"type": "tool-input-delta", "toolCallId": "call_1", "inputTextDelta": '{"city":'},
        {"type": "tool-input-start", "toolCallId": "call_2", "toolName": "now"},
        {"type": "tool-input-delta", "toolCallId": "call_1", "inputTextDelta": ' "Rome"}'},
        {"type": "tool-input-available", "toolCallId": "call_1", "toolName": "clock", "input": {"city": "Rome"}},
        {"type": "tool-input-available", "toolCallId": "call_2", "toolName": "now", "input": {}},
    ]


def test_ui_reports_a_tool_input_that_is_no_json() -> None:
    broken = ChatDelta(tool_calls=[ToolCallDelta(0, "{", id="call_1", name="clock")])
    last = ui(broken, ChatDelta(finish_reason="length"))[-1]
    assert (last["type"], last["input"]) == ("tool-input-error", "{")
    assert last["errorText"]


@pytest.mark.parametrize(
    ("reason", "sent"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "content-filter"), ("tool_calls", "tool-calls")],
)
def test_ui_has_its_own_finish_reasons(reason: Any, sent: str) -> None:
    chunks = values(encode(UIMessageEncoder("msg_1"), TEXT, ChatDelta(finish_reason=reason)))
    assert chunks[-1] == {"type": "finish", "finishReason": sent}


@pytest.mark.parametrize("encoder", [SSEEncoder(), UIMessageEncoder("msg_1")])
def test_heartbeats_pass(encoder: StreamEncoder) -> None:
    assert HEARTBEAT in encode(encoder, TEXT, HEARTBEAT, STOP)


def test_reasoning_yields_heartbeats_in_a_format_without_reasoning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(sse_events, "monotonic", lambda: next(clock))
    blocks = encode(SSEEncoder(), *[REASONING] * 7, STOP, heartbeat_interval=3)
    assert blocks[:-1] == [HEARTBEAT, HEARTBEAT]


def test_half_a_surrogate_pair_is_replaced() -> None:
    assert encode(TextEncoder(), ChatDelta("a\ud83c"), STOP) == [b"a?"]
    assert values(encode(SSEEncoder(), ChatDelta("a\ud83c"), STOP))[0]["content"] == "a?"


def test_ui_sends_the_input_of_a_custom_tool_as_text() -> None:
    call = ChatDelta(tool_calls=(ToolCallDelta(0, "ls -l", "a", "shell", "custom"),))
    base = {"toolCallId": "a", "toolName": "shell"}
    assert ui(call, STOP)[-1] == {"type": "tool-input-available", **base, "input": "ls -l"}


def test_ui_reports_tool_input_with_nan_as_invalid() -> None:
    """Python's parser accepts `NaN`, but browsers do not."""
    call = ChatDelta(tool_calls=(ToolCallDelta(0, '{"x": NaN}', "a", "f"),))
    assert ui(call, STOP)[-1]["type"] == "tool-input-error"
