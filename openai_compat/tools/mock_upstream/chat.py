"""Chat completions in OpenAI's format, as one object or as the chunks of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, zip_longest
from typing import Any

from .errors import ApiError, Json, missing_parameter
from .options import Options
from .replies import (
    CREATED,
    FINGERPRINT,
    count_choices,
    count_tokens,
    digest,
    reply_texts,
    truncate,
    usage_of,
    with_usage,
)

_EXAMPLES: dict[str, Any] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}


@dataclass(frozen=True)
class MockReply:
    """One choice with the texts of its deltas, or with tool calls."""

    texts: Sequence[str]
    tool_calls: Sequence[Json]
    finish_reason: str


def chat_objects(payload: Json, model: str, options: Options) -> tuple[tuple[Json, ...], Json]:
    """Return the object of the answer, or the chunks if a stream is requested, and the usage.

    Raises:
        ApiError: the request is invalid.
    """
    messages = _messages_of(payload)
    replies = [reply_to(payload, messages, index, options) for index in range(count_choices(payload))]
    usage = usage_of(
        sum(4 + count_tokens(text_of(message)) for message in messages),
        sum(len(reply.texts) + 10 * len(reply.tool_calls) for reply in replies),
    )
    common = {"id": f"chatcmpl-{digest(messages)[:29]}", "object": "", "created": CREATED, "model": model}
    if payload.get("stream"):
        return with_usage(list(_chunks(common, replies)), payload, usage), usage
    choices = [_choice(index, reply) for index, reply in enumerate(replies)]
    ending = {"usage": usage, "service_tier": "default", "system_fingerprint": FINGERPRINT}
    return ({**common, "object": "chat.completion", "choices": choices, **ending},), usage


def _messages_of(payload: Json) -> list[Json]:
    """Return the messages.

    Raises:
        ApiError: they are missing or invalid, with OpenAI's message.
    """
    messages = payload.get("messages")
    if messages is None:
        raise missing_parameter("messages")
    if not isinstance(messages, list):
        message = "Invalid type for 'messages': expected an array of objects."
        raise ApiError(400, message, param="messages", code="invalid_type")
    if not messages:
        message = "Invalid 'messages': empty array. Expected an array with minimum length 1."
        raise ApiError(400, message, param="messages", code="empty_array")
    for index, item in enumerate(messages):
        if not isinstance(item, dict):
            message = f"Invalid type for 'messages[{index}]': expected an object."
            raise ApiError(400, message, param=f"messages[{index}]", code="invalid_type")
    return messages


def text_of(message: Json) -> str:
    """Return the text of a message whose content is a string or a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def reply_to(payload: Json, messages: Sequence[Json], index: int, options: Options) -> MockReply:
    """Return one choice, with tool calls if the request has tools and does not end with a tool result."""
    prompt = next((text_of(message) for message in reversed(messages) if message.get("role") == "user"), "")
    tool_calls = _tool_calls(payload, prompt, index, options.calls)
    if tool_calls and messages[-1].get("role") != "tool":
        return MockReply((), tool_calls, "tool_calls")
    limit = payload.get("max_completion_tokens") or payload.get("max_tokens")
    texts, finish_reason = truncate(reply_texts(prompt, index, options), limit)
    return MockReply(texts, (), finish_reason)


def _tool_calls(payload: Json, prompt: str, index: int, calls: int) -> list[Json]:
    """Return `calls` tool calls, of the tool that `tool_choice` names or of all tools in turn."""
    choice = payload.get("tool_choice")
    tools = [tool["function"] for tool in payload.get("tools") or [] if tool.get("type") == "function"]
    if isinstance(choice, dict):
        tools = [tool for tool in tools if tool["name"] == choice.get("function", {}).get("name")]
    if choice == "none" or not tools:
        return []
    return [_tool_call(tool, prompt, f"{index}-{number}") for number, tool in enumerate(islice(cycle(tools), calls))]


def _tool_call(function: Json, prompt: str, number: str) -> Json:
    """Return a call of `function` with an argument for each of its properties."""
    properties = (function.get("parameters") or {}).get("properties") or {}
    arguments = {name: _example_of(schema, prompt) for name, schema in properties.items()}
    return {
        "id": f"call_{digest(function, prompt, number)[:24]}",
        "type": "function",
        "function": {"name": function["name"], "arguments": json.dumps(arguments, ensure_ascii=False)},
    }


def _example_of(schema: Json, prompt: str) -> object:
    """Return a value that matches `schema`, for a free string the user's prompt."""
    if schema.get("enum"):
        return schema["enum"][0]
    return _EXAMPLES.get(str(schema.get("type")), prompt)


def _choice(index: int, reply: MockReply) -> Json:
    """Return a choice of a non-streaming answer."""
    message: Json = {"role": "assistant", "content": None if reply.tool_calls else "".join(reply.texts)}
    if reply.tool_calls:
        message["tool_calls"] = reply.tool_calls
    message |= {"refusal": None, "annotations": []}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": reply.finish_reason}


def _chunks(common: Json, replies: Sequence[MockReply]) -> Iterator[Json]:
    """Yield all roles, then the deltas of the choices in turn, then all finish reasons, as chunks of a stream."""
    common = {**common, "object": "chat.completion.chunk", "service_tier": "default", "system_fingerprint": FINGERPRINT}

    def chunk(index: int, delta: Json, finish_reason: str | None = None) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**common, "choices": [choice]}

    for index, reply in enumerate(replies):
        yield chunk(index, {"role": "assistant", "content": None if reply.tool_calls else "", "refusal": None})
    for deltas in zip_longest(*map(_deltas, replies)):
        yield from (chunk(index, delta) for index, delta in enumerate(deltas) if delta)
    for index, reply in enumerate(replies):
        yield chunk(index, {}, reply.finish_reason)


def _deltas(reply: MockReply) -> Iterator[Json]:
    """Yield the deltas of a choice between its role and its finish reason."""
    yield from ({"content": text} for text in reply.texts)
    for index, call in enumerate(reply.tool_calls):
        arguments = call["function"]["arguments"]
        opening = {**call, "function": {**call["function"], "arguments": ""}}
        yield {"tool_calls": [{"index": index, **opening}]}
        for start in range(0, len(arguments), 8):
            yield {"tool_calls": [{"index": index, "function": {"arguments": arguments[start : start + 8]}}]}
