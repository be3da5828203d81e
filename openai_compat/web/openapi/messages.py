"""Paths of Anthropic's Messages API in the OpenAPI document."""

from __future__ import annotations

import json
from typing import Any, Final

from marshmallow import Schema

from openai_compat.core.anthropic import error_type_of
from openai_compat.web.schemas import messages

_JSON: Final = "application/json"
_TAG: Final = "Messages"
_ERRORS: Final = {
    "400": "The request is invalid, or the prompt is too long.",
    "401": "The request has no valid API key.",
    "404": "There is no such model.",
    "413": "The request body is too large.",
    "415": "The body is not JSON.",
    "501": "The model does not support chat.",
    "502": "The upstream failed.",
}
_QUESTION: Final = [{"role": "user", "content": "Hello!"}]
_TOOL: Final = {
    "name": "get_weather",
    "description": "Get the current weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
_USAGE: Final = {
    "input_tokens": 2,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 2,
    "output_tokens_details": {"thinking_tokens": 0},
}


def messages_paths(model: str) -> dict[str, dict[str, Any]]:
    """Return the operations of each path. The examples use `model`."""
    call = {"model": model, "max_tokens": 64, "messages": _QUESTION}
    requests = {
        "text": {"summary": "A question", "value": call},
        "tools": {"summary": "Tools", "value": {**call, "tools": [_TOOL], "tool_choice": {"type": "any"}}},
        "streamed": {"summary": "Streamed", "value": {**call, "stream": True}},
    }
    prompts = {"text": {"summary": "A question", "value": {"model": model, "messages": _QUESTION}}}
    answer = _reply("The message, or with `stream: true` its events.", messages.MessageReplySchema, _message(model))
    answer["content"]["text/event-stream"] = {"schema": {"type": "string"}, "example": _stream(model)}
    count = _reply("The number of tokens.", messages.TokenCountSchema, {"input_tokens": 9})
    return {
        "/v1/messages": {
            "post": _operation(
                "createMessage", "Answer a conversation of Anthropic's API", messages.MESSAGES_REQUEST, requests, answer
            )
        },
        "/v1/messages/count_tokens": {
            "post": _operation(
                "countMessageTokens", "Count the tokens of a prompt", messages.COUNT_REQUEST, prompts, count
            )
        },
    }


def _operation(name: str, summary: str, schema: Schema, requests: Any, reply: Any) -> dict[str, Any]:
    body = {"required": True, "content": {_JSON: {"schema": schema, "examples": requests}}}
    responses = {"200": reply, **{status: _error(status, text) for status, text in _ERRORS.items()}}
    return {"operationId": name, "summary": summary, "tags": [_TAG], "requestBody": body, "responses": responses}


def _reply(description: str, schema: type[Schema], example: Any) -> dict[str, Any]:
    header = {"description": "The id of this request in the server's log.", "schema": {"type": "string"}}
    content = {_JSON: {"schema": schema, "example": example}}
    return {"description": description, "headers": {"request-id": header}, "content": content}


def _error(status: str, description: str) -> dict[str, Any]:
    error = {"type": error_type_of(int(status)), "message": description}
    example = {"type": "error", "error": error, "request_id": "req_123"}
    return _reply(description, messages.AnthropicErrorSchema, example)


def _message(model: str) -> dict[str, Any]:
    return {
        "id": "msg_123",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": "Hello!"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": _USAGE,
    }


def _stream(model: str) -> str:
    """Return the events of a short answer."""
    start = {**_message(model), "content": [], "stop_reason": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello!"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": _USAGE},
        {"type": "message_stop"},
    ]
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
