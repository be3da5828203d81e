"""Responses in OpenAI's Responses API, as one object or as the events of a stream.

Source of the objects and of the order of events: OpenAI's OpenAPI document and streams recorded there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from .chat import MockReply, reply_to, text_of
from .errors import ApiError, Json, missing_parameter
from .options import Options
from .replies import CREATED, count_tokens, digest

_INCOMPLETE = {"reason": "max_output_tokens"}


def response_objects(payload: Json, model: str, options: Options) -> tuple[tuple[Json, ...], Json]:
    """Return the response, or the events if a stream is requested, and the usage.

    Raises:
        ApiError: the request is invalid.
    """
    messages = _to_messages(payload)
    reply = reply_to(_to_chat(payload), messages, 0, options)
    usage = _usage(messages, reply)
    response = _response(payload, model, messages)
    output = list(_items(reply, digest(messages)[:48]))
    status = "incomplete" if reply.finish_reason == "length" else "completed"
    ended = {**response, "status": status, "output": output, "usage": usage}
    if status == "incomplete":
        ended["incomplete_details"] = _INCOMPLETE
    if not payload.get("stream"):
        return (ended,), usage
    numbers = count()
    events = [{**event, "sequence_number": next(numbers)} for event in _events(response, reply, output, ended)]
    return tuple(events), usage


def _to_messages(payload: Json) -> list[Json]:
    """Return the input as chat messages.

    Raises:
        ApiError: it is missing, or it continues a stored response. The mock stores none.
    """
    if previous := payload.get("previous_response_id"):
        message = f"Previous response with id '{previous}' not found."
        raise ApiError(400, message, param="previous_response_id", code="previous_response_not_found")
    items = payload.get("input")
    if items is None:
        raise missing_parameter("input")
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    return [_to_message(item) for item in items]


def _to_message(item: Json) -> Json:
    if item.get("type") in {"function_call_output", "custom_tool_call_output"}:
        return {"role": "tool", "content": item.get("output")}
    return {"role": item.get("role", "assistant"), "content": item.get("content")}


def _to_chat(payload: Json) -> Json:
    """Return the parameters that decide on tool calls and on the length, as a chat has them."""
    tools = [
        {"type": "function", "function": {**tool, "parameters": tool.get("parameters") or {}}}
        for tool in payload.get("tools") or []
        if tool.get("type") == "function"
    ]
    choice = payload.get("tool_choice")
    if isinstance(choice, dict):
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    return {"tools": tools, "tool_choice": choice, "max_completion_tokens": payload.get("max_output_tokens")}


def _usage(messages: Sequence[Json], reply: MockReply) -> Json:
    inputs = sum(4 + count_tokens(text_of(message)) for message in messages)
    outputs = len(reply.texts) + 10 * len(reply.tool_calls)
    return {
        "input_tokens": inputs,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": outputs,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": inputs + outputs,
    }


def _response(payload: Json, model: str, messages: Sequence[Json]) -> Json:
    """Return the response before its first output."""
    echoed: Json = {
        "instructions": None, "max_output_tokens": None, "max_tool_calls": None, "metadata": {},
        "parallel_tool_calls": True, "previous_response_id": None, "reasoning": {"effort": None, "summary": None},
        "service_tier": "default", "store": True, "temperature": 1.0, "text": {"format": {"type": "text"}},
        "tool_choice": "auto", "tools": [], "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled", "user": None,
    }  # fmt: skip
    return {
        "id": f"resp_{digest(messages)[:48]}",
        "object": "response",
        "created_at": CREATED,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "usage": None,
        **{name: default if payload.get(name) is None else payload[name] for name, default in echoed.items()},
    }


def _items(reply: MockReply, suffix: str) -> Iterator[Json]:
    """Yield the finished output items."""
    status = "incomplete" if reply.finish_reason == "length" else "completed"
    for number, call in enumerate(reply.tool_calls):
        yield {
            "id": f"fc_{number}{suffix[1:]}",
            "type": "function_call",
            "status": status,
            "arguments": call["function"]["arguments"],
            "call_id": call["id"],
            "name": call["function"]["name"],
        }
    if not reply.tool_calls:
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": "".join(reply.texts)}
        yield {"id": f"msg_{suffix}", "type": "message", "status": status, "content": [part], "role": "assistant"}


def _events(response: Json, reply: MockReply, output: Sequence[Json], ended: Json) -> Iterator[Json]:
    yield {"type": "response.created", "response": response}
    yield {"type": "response.in_progress", "response": response}
    for index, item in enumerate(output):
        at = {"item_id": item["id"], "output_index": index}
        empty: Json = {"arguments": ""} if item["type"] == "function_call" else {"content": []}
        opened = {**item, "status": "in_progress", **empty}
        yield {"type": "response.output_item.added", "output_index": index, "item": opened}
        yield from _call_events(at, item) if item["type"] == "function_call" else _text_events(at, item, reply.texts)
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{ended['status']}", "response": ended}


def _call_events(at: Json, item: Json) -> Iterator[Json]:
    arguments = item["arguments"]
    for start in range(0, len(arguments), 8):
        yield {"type": "response.function_call_arguments.delta", **at, "delta": arguments[start : start + 8]}
    yield {"type": "response.function_call_arguments.done", **at, "arguments": arguments}


def _text_events(at: Json, item: Json, texts: Sequence[str]) -> Iterator[Json]:
    at = {**at, "content_index": 0}
    part: dict[str, Any] = item["content"][0]
    yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
    for text in texts:
        yield {"type": "response.output_text.delta", **at, "delta": text, "logprobs": []}
    yield {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **at, "part": part}
