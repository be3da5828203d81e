"""Checks of Anthropic's Messages API, for servers that have it beside OpenAI's."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from openai_compat.core.anthropic import VERSION, VERSION_HEADER
from openai_compat.core.types import JSON
from openai_compat.tools.http_probe import ProbeResponse

from .client import (
    MISSING_ENDPOINT,
    STORY,
    TOOL,
    CheckSkipped,
    ConformanceClient,
    excerpt,
    expect,
    require_object,
    require_stream,
)
from .registry import Section

MESSAGES = Section("messages")
HEADERS = {VERSION_HEADER: VERSION}
REQUIRED_KEYS = {"id", "type", "role", "content", "model", "stop_reason", "stop_sequence", "usage"}
_FUNCTION: Any = TOOL["function"]
FORCED: dict[str, Any] = {
    "tools": [{"name": _FUNCTION["name"], "input_schema": _FUNCTION["parameters"]}],
    "tool_choice": {"type": "tool", "name": _FUNCTION["name"]},
}


def post_message(client: ConformanceClient, path: str = "messages", **parameters: Any) -> ProbeResponse:
    """Request a message.

    Raises:
        CheckSkipped: the server does not support the Messages API.
    """
    payload = {"model": client.target.model, "messages": [{"role": "user", "content": "Say hello."}], **parameters}
    response = client.post(path, payload, HEADERS)
    if response.status in MISSING_ENDPOINT:
        raise CheckSkipped(f"the Messages API is not supported ({response.status})")
    return response


def stream_events(client: ConformanceClient, **parameters: Any) -> list[JSON]:
    """Return the events of a streamed message, without the pings that keep the connection open."""
    response = post_message(client, max_tokens=512, stream=True, **parameters)
    if "tools" in parameters and response.status in {400, 501}:
        raise CheckSkipped(f"the model does not support tools ({response.status})")
    stream = require_stream(response)
    events = stream.objects
    expect([event.get("type") for event in events] == stream.names, "the `event:` lines differ from the types")
    return [event for event in events if event["type"] != "ping"]


def require_error(response: ProbeResponse, status: int, type_: str) -> None:
    """Raise CheckFailed unless the response is an error of this status in Anthropic's envelope."""
    expect(response.status == status, f"status {response.status}: {excerpt(response.body)}")
    value = response.json()
    error = value.get("error") if isinstance(value, dict) and value.get("type") == "error" else None
    is_right = isinstance(error, dict) and error.get("type") == type_ and isinstance(error.get("message"), str)
    expect(is_right, f"no error of the type {type_}: {excerpt(response.body)}")


@MESSAGES.check(
    "the object has every required key, an id that begins with `msg_`, and text",
    why="typed clients reject an object without them",
)
def message_object(client: ConformanceClient) -> None:
    value = require_object(post_message(client, max_tokens=64))
    missing = REQUIRED_KEYS - value.keys()
    expect(not missing, f"missing: {', '.join(sorted(missing))}")
    expect((value["type"], value["role"]) == ("message", "assistant"), f"type {value['type']}, role {value['role']}")
    expect(str(value["id"]).startswith("msg_"), f"id {value['id']!r}")
    texts = [block["text"] for block in value["content"] if block["type"] == "text"]
    expect(any(texts), f"no text in {excerpt(str(value['content']).encode())}")


@MESSAGES.check(
    "an answer that reaches `max_tokens` says so",
    why="Claude Code asks for the rest of an answer, and takes any other reason for its end",
)
def message_max_tokens(client: ConformanceClient) -> None:
    value = require_object(
        post_message(client, max_tokens=2, messages=[{"role": "user", "content": f"Repeat this word by word. {STORY}"}])
    )
    expect(value["stop_reason"] == "max_tokens", f"stop_reason {value['stop_reason']!r}")
    expect(value["usage"]["output_tokens"] == 2, f"usage {value['usage']}")


@MESSAGES.check(
    "a stream begins with `message_start`, and has one block at a time and numbers without gaps",
    why="Anthropic's clients index the content by these numbers, and raise an error for a gap",
)
def message_stream_order(client: ConformanceClient) -> None:
    events = stream_events(client)
    expect(events[0]["type"] == "message_start", f"the first event is {events[0]['type']}")
    expect(events[0]["message"]["content"] == [], "the message of `message_start` has content")
    blocks = [event for event in events if event["type"].startswith("content_block_")]
    runs = [(index, list(run)) for index, run in groupby(blocks, key=lambda event: event["index"])]
    expect([index for index, _ in runs] == list(range(len(runs))), f"indexes {[index for index, _ in runs]}")
    for index, run in runs:
        types = [event["type"].removeprefix("content_block_") for event in run]
        is_ordered = types[0] == "start" and types[-1] == "stop" and set(types[1:-1]) <= {"delta"}
        expect(is_ordered, f"the events of block {index} are {', '.join(types[:10])}")


@MESSAGES.check(
    "`message_stop` ends a stream that has a stop reason, and no other, and there is no [DONE]",
    why="clients take a message with it for complete",
)
def message_stream_end(client: ConformanceClient) -> None:
    events = stream_events(client)
    types = [event["type"] for event in events]
    reasons = [event["delta"].get("stop_reason") for event in events if event["type"] == "message_delta"]
    if "message_stop" in types:
        expect(types.count("message_stop") == 1 and types[-1] == "message_stop", f"the last events are {types[-3:]}")
        expect(any(reasons), "`message_stop` follows no stop reason")
        expect("error" not in types, "`message_stop` follows an error")
    else:
        expect("error" in types, f"the last event is {types[-1]}, neither `message_stop` nor an error")


@MESSAGES.check(
    "the usage is in `message_start` and, complete, in `message_delta`",
    why="clients show how full the context is, and Anthropic's raise an error if a usage is missing",
)
def message_usage(client: ConformanceClient) -> None:
    events = stream_events(client)
    start = events[0]["message"].get("usage") or {}
    expect(start.get("input_tokens", 0) > 0, f"usage of message_start: {start}")
    usages = [event.get("usage") or {} for event in events if event["type"] == "message_delta"]
    expect(usages and usages[-1].get("output_tokens", 0) > 0, f"usage of message_delta: {usages}")


@MESSAGES.check(
    "a forced tool call is a `tool_use` block with an object as its input, also in a stream",
    why="agents run the tool with this object",
)
def message_tool_use(client: ConformanceClient) -> None:
    question = [{"role": "user", "content": "What is the weather in Paris?"}]
    events = stream_events(client, messages=question, **FORCED)
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    calls = [block for block in starts if block["type"] == "tool_use"]
    expect(calls, "no block tool_use")
    expect((calls[0]["name"], calls[0]["input"]) == (_FUNCTION["name"], {}), f"the block starts as {calls[0]}")
    reasons = [event["delta"]["stop_reason"] for event in events if event["type"] == "message_delta"]
    expect(reasons == ["tool_use"], f"stop reasons {reasons}")
    value = require_object(post_message(client, max_tokens=512, messages=question, **FORCED))
    inputs = [block["input"] for block in value["content"] if block["type"] == "tool_use"]
    expect(inputs and isinstance(inputs[0], dict), f"inputs {inputs}")


@MESSAGES.check(
    "missing messages and an unknown model have Anthropic's error envelope",
    why="its clients choose the exception by it, and Claude Code decides whether to try again",
)
def message_errors(client: ConformanceClient) -> None:
    require_error(post_message(client, max_tokens=16, messages=None), 400, "invalid_request_error")
    payload = {"model": "no-such-model-0", "max_tokens": 16, "messages": [{"role": "user", "content": "Hi"}]}
    unknown = client.post("messages", payload, HEADERS)
    if unknown.status == 200:
        raise CheckSkipped("the server answers for any model")
    require_error(unknown, 404, "not_found_error")


@MESSAGES.check(
    "`count_tokens` counts the tokens of the messages and of the tools",
    why="agents compact a conversation in time",
)
def message_token_count(client: ConformanceClient) -> None:
    path = "messages/count_tokens"
    short = require_object(post_message(client, path)).get("input_tokens", 0)
    long = require_object(post_message(client, path, tools=FORCED["tools"])).get("input_tokens", 0)
    expect(0 < short < long, f"{short} tokens, {long} with a tool")


@MESSAGES.check(
    "the models are listed in Anthropic's form for the header `anthropic-version`",
    why="Claude Code reads no other form",
)
def message_models(client: ConformanceClient) -> None:
    require_object(post_message(client, max_tokens=16))
    value = require_object(client.send("GET", "models?limit=1000", headers=HEADERS))
    missing = {"data", "has_more", "first_id", "last_id"} - value.keys()
    expect(not missing, f"missing: {', '.join(sorted(missing))}")
    others = [model for model in value["data"] if model.get("type") != "model" or "created_at" not in model]
    expect(not others, f"{len(others)} models have another form")
