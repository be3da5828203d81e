"""Questions about tool calls."""

from __future__ import annotations

import json
from typing import Any

from .client import CheckSkipped, ConformanceClient, expect
from .registry import Section

TOOLS = Section("tool calls")


@TOOLS.question("a call has id, type, name, and arguments that are JSON text", why="all four are needed to answer it")
def tool_call(interview: ConformanceClient) -> None:
    (call, *_) = interview.tool_call_message().get("tool_calls") or [{}]
    expect(call.get("id") and call.get("type") == "function", f"the call is {call}")
    expect(call["function"]["name"] == "get_weather", f"name {call['function']['name']!r}")
    expect(isinstance(json.loads(call["function"]["arguments"]), dict), f"arguments {call['function']['arguments']!r}")


@TOOLS.question("it ends with `tool_calls`, and content is null", why="an agent that reads `stop` ends its loop")
def tool_finish_reason(interview: ConformanceClient) -> None:
    message = interview.tool_call_message()
    expect(message["finish_reason"] == "tool_calls", f"finish_reason {message['finish_reason']!r}")
    expect("content" in message and not message["content"], f"content {message.get('content', 'absent')!r}")


def _deltas(interview: ConformanceClient) -> list[dict[str, Any]]:
    """The tool-call deltas of the stream, in order."""
    interview.tool_call_message()  # not asked where the model has no tools
    choices = interview.tool_stream.choices()
    deltas = [delta for choice in choices for delta in choice["delta"].get("tool_calls") or []]
    if not deltas:
        raise CheckSkipped("the model called no tool this time")
    return deltas


@TOOLS.question("streamed, each piece has an integer `index` from 0", why="pieces are put together by it")
def tool_indexes(interview: ConformanceClient) -> None:
    indexes = [delta.get("index") for delta in _deltas(interview)]
    expect(all(type(index) is int for index in indexes), f"indexes {indexes}")
    expect(indexes[0] == 0, f"the first index is {indexes[0]}")


@TOOLS.question("streamed, id and name come once, first", why="accumulators join strings that are repeated")
def tool_id_and_name_once(interview: ConformanceClient) -> None:
    deltas = [delta for delta in _deltas(interview) if delta["index"] == 0]
    ids = [delta["id"] for delta in deltas if delta.get("id")]
    names = [delta["function"]["name"] for delta in deltas if delta.get("function", {}).get("name")]
    expect(len(ids) == len(names) == 1, f"{len(ids)} ids, {len(names)} names")
    expect(deltas[0].get("id") and deltas[0].get("type") == "function", f"the first piece is {deltas[0]}")


@TOOLS.question("streamed, the arguments add up to JSON, and `tool_calls` ends it", why="the tool is run with them")
def tool_arguments(interview: ConformanceClient) -> None:
    pieces = [delta.get("function", {}).get("arguments") or "" for delta in _deltas(interview) if delta["index"] == 0]
    expect(isinstance(json.loads("".join(pieces)), dict), f"arguments {''.join(pieces)!r}")
    reasons = {choice["finish_reason"] for choice in interview.tool_stream.choices() if choice["finish_reason"]}
    expect(reasons == {"tool_calls"}, f"finish reasons {reasons}")
