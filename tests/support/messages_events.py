"""Reader of Messages streams that checks what the strictest of Anthropic's clients require."""

from __future__ import annotations

import json
from typing import Any

Event = dict[str, Any]


def parse_events(data: bytes) -> list[Event]:
    """Return the events of a stream without pings. Each has an `event:` line with its type and one `data:` line."""
    events = []
    for block in data.decode().split("\n\n"):
        if block:
            name, line = block.split("\n")
            event = json.loads(line.removeprefix("data: "))
            assert name == f"event: {event['type']}"
            if event["type"] != "ping":
                events.append(event)
    return events


def read_message(events: list[Event]) -> Event:
    """Check a complete stream and return its message, collected as Anthropic's client for Python does.

    One `message_start` with a usage comes first. Blocks have the indexes 0, 1, 2 and so on, and one is open at a time.
    Every delta belongs to the open block and has its type. The end is `message_delta` with a usage and `message_stop`.
    """
    first, *inner, delta, stop = events
    assert (first["type"], delta["type"], stop["type"]) == ("message_start", "message_delta", "message_stop")
    message: Event = first["message"]
    assert (message["content"], message["stop_reason"]) == ([], None)
    assert message["usage"]["input_tokens"] > 0
    position = 0
    while position < len(inner):
        position = _read_block(inner, position, message["content"])
    usage = {**message["usage"], **delta["usage"]}
    assert "output_tokens" in delta["usage"]
    return {**message, **delta["delta"], "usage": usage}


def _read_block(events: list[Event], position: int, content: list[Event]) -> int:
    start = events[position]
    assert start["type"] == "content_block_start"
    assert start["index"] == len(content)
    block, texts = dict(start["content_block"]), []
    content.append(block)
    for at in range(position + 1, len(events)):
        event = events[at]
        assert event["index"] == start["index"]
        if event["type"] == "content_block_stop":
            _finish(block, texts)
            return at + 1
        assert event["type"] == "content_block_delta"
        _add(block, event["delta"], texts)
    raise AssertionError(f"block {start['index']} is not closed")


def _add(block: Event, delta: Event, texts: list[str]) -> None:
    type_, text = (delta[key] for key in delta)
    if type_ == "signature_delta":
        assert block["type"] == "thinking"
        assert not block["signature"], "a second signature"
        block["signature"] = text
        return
    expected = {"text": "text_delta", "thinking": "thinking_delta", "tool_use": "input_json_delta"}
    assert type_ == expected[block["type"]]
    assert text, "an empty delta"
    assert not block.get("signature"), "a delta after the signature"
    texts.append(text)


def _finish(block: Event, texts: list[str]) -> None:
    text = "".join(texts)
    if block["type"] == "tool_use":
        assert text, "a call without arguments"
        block["input"] = json.loads(text)
    elif block["type"] != "redacted_thinking":
        block[block["type"]] += text
