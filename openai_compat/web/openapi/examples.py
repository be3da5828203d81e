"""Examples of the OpenAPI document, with requests that work as they are and their responses."""

from __future__ import annotations

import json
from typing import Any

from openai_compat.core.errors import (
    AuthenticationError,
    CapabilityError,
    InvalidRequestError,
    ModelNotFoundError,
    OpenAICompatError,
    RequestTooLargeError,
    UnsupportedMediaTypeError,
    UpstreamConnectionError,
)

Examples = dict[str, dict[str, Any]]

CREATED = 1767225600
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
DETAILED_USAGE = {
    **USAGE,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}
RESPONSES_USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 4,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 13,
}
WEATHER_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}

ERRORS: dict[int, tuple[str, OpenAICompatError]] = {
    400: (
        "The request is invalid.",
        InvalidRequestError(
            "Missing required parameter: 'messages'.", param="messages", code="missing_required_parameter"
        ),
    ),
    401: ("The API key is missing or wrong.", AuthenticationError("Incorrect API key provided.")),
    404: ("The model does not exist.", ModelNotFoundError("gpt-unheard-of")),
    413: ("The body is too large.", RequestTooLargeError("The request body is too large.")),
    415: ("The body is not JSON.", UnsupportedMediaTypeError("The Content-Type must be application/json.")),
    501: (
        "The model does not support this endpoint.",
        CapabilityError("The model 'gpt2' does not support chat.", param="model"),
    ),
    502: (
        "The upstream failed.",
        UpstreamConnectionError("The upstream cannot be reached."),
    ),
}
"""Description and example of each error, by HTTP status."""


def chat_requests(model: str) -> Examples:
    """Return requests for `POST /v1/chat/completions`."""
    hello = {"model": model, "messages": [{"role": "user", "content": "Hello!"}]}
    question = [{"role": "user", "content": "What is the weather in Lisbon?"}]
    return {
        "plain": _example("A question", hello),
        "conversation": _example(
            "A conversation, with a system message",
            {
                "model": model,
                "messages": [
                    {"role": "system", "content": "You are a helpful assistant."},
                    {"role": "user", "content": "Hello!"},
                    {"role": "assistant", "content": "Hi there!"},
                    {"role": "user", "content": "How are you?"},
                ],
                "temperature": 0.7,
                "max_tokens": 64,
            },
        ),
        "streamed": _example("Streamed", {**hello, "stream": True, "stream_options": {"include_usage": True}}),
        "tools": _example("With a tool", {"model": model, "messages": question, "tools": [WEATHER_TOOL]}),
    }


def chat_reply(model: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Hello!", "refusal": None}
    return {
        "id": "chatcmpl-123",
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": DETAILED_USAGE,
    }


def chat_chunk(model: str, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {
        "id": "chatcmpl-123",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }


def chat_stream(model: str) -> str:
    first = chat_chunk(model, {"role": "assistant", "content": ""})
    return to_events(first, chat_chunk(model, {"content": "Hello!"}), chat_chunk(model, {}, "stop"))


def responses_requests(model: str) -> Examples:
    """Return requests for `POST /v1/responses`."""
    tool = {"type": "function", **WEATHER_TOOL["function"]}
    items = [{"role": "user", "content": "What is the weather in Lisbon?"}]
    return {
        "text": _example("A text", {"model": model, "input": "Hello!", "instructions": "Be brief."}),
        "streamed": _example("Streamed", {"model": model, "input": "Hello!", "stream": True}),
        "tools": _example("Items and a tool", {"model": model, "input": items, "tools": [tool]}),
    }


def responses_reply(model: str, status: str = "completed") -> dict[str, Any]:
    text = {"type": "output_text", "text": "Hello!", "annotations": [], "logprobs": []}
    message = {"id": "msg_123", "type": "message", "status": "completed", "role": "assistant", "content": [text]}
    return {
        "id": "resp_123",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [message] if status == "completed" else [],
        "usage": RESPONSES_USAGE if status == "completed" else None,
    }


def responses_stream(model: str) -> str:
    """Return the first event, a delta and the last event."""
    place = {"item_id": "msg_123", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "sequence_number": 0, "response": responses_reply(model, "in_progress")},
        {"type": "response.output_text.delta", **place, "delta": "Hello!", "logprobs": [], "sequence_number": 4},
        {"type": "response.completed", "sequence_number": 8, "response": responses_reply(model)},
    ]
    return "".join(f"event: {event['type']}\n{_to_event(event)}" for event in events)


def completion_requests(model: str) -> Examples:
    """Return requests for `POST /v1/completions`."""
    return {
        "text": _example("One text", {"model": model, "prompt": "Once upon a time", "max_tokens": 16}),
        "texts": _example("Several texts", {"model": model, "prompt": ["Once", "Twice"], "max_tokens": 16}),
        "streamed": _example("Streamed", {"model": model, "prompt": "Once upon a time", "stream": True}),
    }


def completion_reply(model: str, finish_reason: str | None = "stop") -> dict[str, Any]:
    return {
        "id": "cmpl-123",
        "object": "text_completion",
        "created": CREATED,
        "model": model,
        "choices": [{"index": 0, "text": " there was", "logprobs": None, "finish_reason": finish_reason}],
        "usage": USAGE,
    }


def completion_stream(model: str) -> str:
    chunks: list[dict[str, Any]] = []
    for text, finish_reason in ((" there", None), (" was", None), ("", "stop")):
        chunk = completion_reply(model)
        chunk["choices"] = [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}]
        del chunk["usage"]
        chunks.append(chunk)
    return to_events(*chunks)


def embeddings_requests(model: str) -> Examples:
    """Return requests for `POST /v1/embeddings`."""
    return {
        "text": _example("One text", {"model": model, "input": "The food was delicious."}),
        "texts": _example("Several texts", {"model": model, "input": ["The food", "the waiter"]}),
        "base64": _example("As base64", {"model": model, "input": "The food", "encoding_format": "base64"}),
    }


def embeddings_reply(model: str) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}],
        "model": model,
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }


def model_reply(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": CREATED, "owned_by": "openai-compat"}


def ask_requests() -> Examples:
    """Return requests for `POST /ask`."""
    parts = [{"type": "text", "text": "Hello!"}]
    return {
        "messages": _example(
            "Messages with a role and a content",
            {
                "messages": [
                    {"role": "user", "content": "Hello!"},
                    {"role": "assistant", "content": "Hi there!"},
                    {"role": "user", "content": "How are you?"},
                ]
            },
        ),
        "useChat": _example(
            "The format of the AI SDK's `useChat`",
            {
                "id": "chat-1",
                "messages": [{"id": "message-1", "role": "user", "parts": parts}],
                "trigger": "submit-message",
            },
        ),
    }


def ask_streams() -> Examples:
    """Return the streams of `POST /ask` in the formats that consist of events."""
    events: list[dict[str, Any]] = [
        {"role": "assistant", "content": "Hello!", "finish_reason": None},
        {"role": "assistant", "content": "", "finish_reason": "stop"},
    ]
    ui_events: list[dict[str, Any]] = [
        {"type": "start", "messageId": "message-2"},
        {"type": "start-step"},
        {"type": "text-start", "id": "0"},
        {"type": "text-delta", "id": "0", "delta": "Hello!"},
        {"type": "text-end", "id": "0"},
        {"type": "finish-step"},
        {"type": "finish", "finishReason": "stop"},
    ]
    return {
        "sse": _example("`format=sse`", "".join(_to_event(event) for event in events)),
        "ui": _example("`format=ui`", to_events(*ui_events)),
    }


def ask_error(details: str) -> dict[str, str]:
    return {"role": "assistant", "content": details, "error": "invalid_request_error", "details": details}


def to_events(*values: dict[str, Any]) -> str:
    """Return a complete stream of server-sent events that ends with `[DONE]`."""
    return "".join(_to_event(value) for value in values) + "data: [DONE]\n\n"


def _to_event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


def _example(summary: str, value: Any) -> dict[str, Any]:
    return {"summary": summary, "value": value}
