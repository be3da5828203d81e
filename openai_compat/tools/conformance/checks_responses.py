"""Checks of the Responses API."""

from __future__ import annotations

from typing import Any

from openai_compat.core.types import JSON
from openai_compat.tools.http_probe import ProbeResponse

from .client import (
    MISSING_ENDPOINT,
    TOOL,
    CheckSkipped,
    ConformanceClient,
    expect,
    require_error,
    require_object,
    require_stream,
)
from .registry import Section

RESPONSES = Section("responses")
ENDS = {"response.completed", "response.incomplete", "response.failed"}
REQUIRED_KEYS = {
    "id", "object", "created_at", "error", "incomplete_details", "instructions", "metadata", "model", "output",
    "parallel_tool_calls", "status", "temperature", "tool_choice", "tools", "top_p", "usage",
}  # fmt: skip
_TOOL: Any = TOOL["function"]
FUNCTION = {"type": "function", "strict": False, **_TOOL}


def post_response(client: ConformanceClient, **parameters: Any) -> ProbeResponse:
    """Request a response.

    Raises:
        CheckSkipped: the server does not support the Responses API.
    """
    payload = {"model": client.target.model, "input": "Say hello.", **parameters}
    response = client.post("responses", payload)
    if response.status in MISSING_ENDPOINT:
        raise CheckSkipped(f"the Responses API is not supported ({response.status})")
    return response


def stream_events(client: ConformanceClient, **parameters: Any) -> list[JSON]:
    """Return the events of a streamed response, which must have no `[DONE]` and the names of their types."""
    stream = require_stream(post_response(client, stream=True, **parameters))
    expect("[DONE]" not in stream.data, "the stream has a [DONE]")
    events = stream.objects
    types = [event["type"] for event in events]
    expect(types == stream.names, "the `event:` lines differ from the types of the events")
    return events


@RESPONSES.check(
    "the object has every required key, a usage, and text with `annotations`",
    why="the AI SDK and typed clients reject an object without them",
)
def response_object(client: ConformanceClient) -> None:
    value = require_object(post_response(client))
    missing = REQUIRED_KEYS - value.keys()
    expect(not missing, f"missing: {', '.join(sorted(missing))}")
    usage = value["usage"]
    expect(usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"], f"usage {usage}")
    parts = [part for item in value["output"] if item["type"] == "message" for part in item["content"]]
    expect(parts, "no message in the output")
    expect(all(isinstance(part.get("annotations"), list) for part in parts), f"part {parts[0]}")


@RESPONSES.check(
    "the stream has `response.created` first, rising numbers, one end and no [DONE]",
    why="clients process it with a state machine",
)
def responses_stream(client: ConformanceClient) -> None:
    events = stream_events(client)
    types = [event["type"] for event in events]
    expect(types[0] == "response.created", f"the first event is {types[0]}")
    expect(types[-1] in ENDS, f"the last event is {types[-1]}")
    expect(sum(name in ENDS for name in types) == 1, "several events end the stream")
    numbers = [event["sequence_number"] for event in events]
    expect(numbers == list(range(len(numbers))), f"sequence numbers {numbers[:10]}")


@RESPONSES.check(
    "an item has the same id when it is added, done and in the final response",
    why="OpenAI's helpers raise an error otherwise",
)
def item_ids(client: ConformanceClient) -> None:
    events = stream_events(client)
    added = [event["item"]["id"] for event in events if event["type"] == "response.output_item.added"]
    done = [event["item"]["id"] for event in events if event["type"] == "response.output_item.done"]
    final = [item["id"] for item in events[-1]["response"]["output"]]
    expect(added == done == final, f"added {added}, done {done}, final {final}")
    ids = {event["response"]["id"] for event in events if "response" in event}
    expect(len(ids) == 1, f"the response has several ids: {sorted(ids)}")


@RESPONSES.check(
    "the deltas of a text add up to the text of its part",
    why="interfaces show the deltas, agents use the finished item",
)
def text_deltas(client: ConformanceClient) -> None:
    events = stream_events(client)
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    expect(deltas, "no event response.output_text.delta")
    expect(all("content_index" in event for event in deltas), "a delta has no content_index")
    text = "".join(event["delta"] for event in deltas)
    done = [event["text"] for event in events if event["type"] == "response.output_text.done"]
    expect(text == "".join(done), f"deltas {text[:80]!r}, done {done[:1]}")


@RESPONSES.check(
    "a required function call has `call_id`, `name` and its arguments as a string",
    why="Codex drops a call whose arguments are an object, without an error",
)
def function_call(client: ConformanceClient) -> None:
    response = post_response(
        client, input="What is the weather in Paris?", tools=[FUNCTION], tool_choice="required", stream=True
    )
    if response.status in {400, 501}:
        raise CheckSkipped(f"the model does not support tools ({response.status})")
    events = require_stream(response).objects
    calls = [item for item in events[-1]["response"]["output"] if item["type"] == "function_call"]
    expect(calls, "no function call in the output")
    expect(calls[0]["name"] == _TOOL["name"], f"name {calls[0]['name']!r}")
    expect(bool(calls[0].get("call_id")), "no call_id")
    expect(isinstance(calls[0]["arguments"], str), f"arguments {calls[0]['arguments']!r}")
    deltas = [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"]
    expect("".join(deltas) == "".join(call["arguments"] for call in calls), "the deltas differ from the arguments")


@RESPONSES.check(
    "an unknown `previous_response_id` is a 400 with the code previous_response_not_found",
    why="clients then send the whole conversation again",
)
def unknown_previous_response(client: ConformanceClient) -> None:
    error = require_error(post_response(client, previous_response_id="resp_" + "0" * 48), 400)
    expect(error["code"] == "previous_response_not_found", f"code {error['code']!r}")
    expect(error["param"] == "previous_response_id", f"param {error['param']!r}")
