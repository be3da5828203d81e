"""Checks of tool calls."""

from __future__ import annotations

import json
from typing import Any

from .client import CheckSkipped, ConformanceClient, expect
from .registry import Section

TOOLS = Section("tool calls")


@TOOLS.check(
    "a call has id, type, name, and arguments as JSON text",
    why="clients need all four to return the result",
)
def tool_call(client: ConformanceClient) -> None:
    (call, *_) = client.tool_call_message().get("tool_calls") or [{}]
    expect(call.get("id") and call.get("type") == "function", f"the call is {call}")
    expect(call["function"]["name"] == "get_weather", f"name {call['function']['name']!r}")
    expect(isinstance(json.loads(call["function"]["arguments"]), dict), f"arguments {call['function']['arguments']!r}")


@TOOLS.check(
    "the `finish_reason` is tool_calls and content is null",
    why="an agent that reads `stop` ends its loop",
)
def tool_finish_reason(client: ConformanceClient) -> None:
    message = client.tool_call_message()
    expect(message["finish_reason"] == "tool_calls", f"finish_reason {message['finish_reason']!r}")
    expect("content" in message and not message["content"], f"content {message.get('content', 'absent')!r}")


def _deltas(client: ConformanceClient) -> list[dict[str, Any]]:
    """Return the tool-call deltas of the stream in order.

    Raises:
        CheckSkipped: the model does not support tools, or called none.
    """
    client.tool_call_message()  # skips the check if the model does not support tools
    choices = client.tool_stream.choices()
    deltas = [delta for choice in choices for delta in choice["delta"].get("tool_calls") or []]
    if not deltas:
        raise CheckSkipped("the model called no tool")
    return deltas


@TOOLS.check(
    "streamed, each delta has an integer `index` from 0",
    why="clients join the deltas by it",
)
def tool_indexes(client: ConformanceClient) -> None:
    indexes = [delta.get("index") for delta in _deltas(client)]
    expect(all(type(index) is int for index in indexes), f"indexes {indexes}")
    expect(indexes[0] == 0, f"the first index is {indexes[0]}")


@TOOLS.check(
    "streamed, id and name are in the first delta only",
    why="accumulators concatenate repeated strings",
)
def tool_id_and_name_in_first_delta(client: ConformanceClient) -> None:
    deltas = [delta for delta in _deltas(client) if delta["index"] == 0]
    ids = [delta["id"] for delta in deltas if delta.get("id")]
    names = [delta["function"]["name"] for delta in deltas if delta.get("function", {}).get("name")]
    expect(len(ids) == len(names) == 1, f"{len(ids)} ids, {len(names)} names")
    expect(deltas[0].get("id") and deltas[0].get("type") == "function", f"the first delta is {deltas[0]}")


@TOOLS.check(
    "streamed, the arguments join to JSON and the reason is tool_calls",
    why="the tool is called with them",
)
def tool_arguments(client: ConformanceClient) -> None:
    arguments = [delta.get("function", {}).get("arguments") or "" for delta in _deltas(client) if delta["index"] == 0]
    expect(isinstance(json.loads("".join(arguments)), dict), f"arguments {''.join(arguments)!r}")
    reasons = {choice["finish_reason"] for choice in client.tool_stream.choices() if choice["finish_reason"]}
    expect(reasons == {"tool_calls"}, f"finish reasons {reasons}")
