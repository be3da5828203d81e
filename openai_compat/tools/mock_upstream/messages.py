"""Messages in Anthropic's Messages API, as one object or as the events of a stream.

Source of the objects and of the order of events: Anthropic's API reference, "Messages" and "Streaming messages".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from openai_compat.core.anthropic import STOP_REASONS

from .chat import MockReply, reply_to, text_of
from .errors import Json
from .messages_checks import check_messages, check_parameters, signature_of
from .options import Options
from .replies import count_tokens, digest

_THOUGHTS = ("The user said ", "something, ", "so I answer.")
_THINKING = frozenset({"enabled", "adaptive"})


def message_objects(payload: Json, model: str, options: Options) -> tuple[tuple[Json, ...], Json]:
    """Return the message, or the events if a stream is requested, and the usage.

    Raises:
        ApiError: the request is invalid.
    """
    check_parameters(payload)
    messages = [_to_message(message) for message in payload["messages"]]
    reply, stop_sequence = _stop_at(
        reply_to(_to_chat(payload), messages, 0, options), payload.get("stop_sequences") or ()
    )
    message = _message(payload, model, options, reply, stop_sequence)
    if not payload.get("stream"):
        return (message,), message["usage"]
    return tuple(_events(message, reply.texts)), message["usage"]


def count_objects(payload: Json, _model: str, _options: Options) -> tuple[tuple[Json, ...], Json]:
    """Return the number of the prompt's tokens. It takes no `max_tokens`.

    Raises:
        ApiError: the messages are invalid.
    """
    check_messages(payload)
    return ({"input_tokens": _count_prompt(payload)},), {}


def _message(payload: Json, model: str, options: Options, reply: MockReply, stop_sequence: str | None) -> Json:
    content = [*_thinking(payload, options), *_content(reply)]
    return {
        "id": f"msg_{digest(payload['messages'])[:24]}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": "stop_sequence" if stop_sequence else STOP_REASONS[reply.finish_reason],  # type: ignore[index]
        "stop_sequence": stop_sequence,
        "usage": _usage(payload, reply, options),
    }


def _to_message(message: Json) -> Json:
    """Return the message as chat has it. One with results is a tool's."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    has_results = any(part.get("type") == "tool_result" for part in parts)
    return {"role": "tool" if has_results else message["role"], "content": content}


def _to_chat(payload: Json) -> Json:
    """Return the parameters that decide on tool calls and on the length, as a chat has them."""
    tools = [
        {"type": "function", "function": {"name": tool["name"], "parameters": tool.get("input_schema")}}
        for tool in payload.get("tools") or []
        if "input_schema" in tool
    ]
    choice: Any = payload.get("tool_choice") or {}
    named = {"type": "function", "function": {"name": choice.get("name")}}
    return {
        "tools": tools,
        "tool_choice": named if choice.get("type") == "tool" else choice.get("type"),
        "max_tokens": payload.get("max_tokens"),
    }


def _stop_at(reply: MockReply, stops: Sequence[str]) -> tuple[MockReply, str | None]:
    """Return the reply up to the first stop sequence in it, and the sequence."""
    text = "".join(reply.texts)
    found = min(((text.index(stop), stop) for stop in stops if stop in text), default=None)
    if found is None:
        return reply, None
    return replace(reply, texts=(text[: found[0]],)), found[1]


def _thinking(payload: Json, options: Options) -> Iterator[Json]:
    """Yield the block of reasoning, readable or encrypted, if the request turns thinking on."""
    if (payload.get("thinking") or {}).get("type") not in _THINKING:
        return
    if options.redacted:
        yield {"type": "redacted_thinking", "data": signature_of("redacted")}
        return
    text = "".join(_THOUGHTS)
    yield {"type": "thinking", "thinking": text, "signature": signature_of(text)}


def _content(reply: MockReply) -> Iterator[Json]:
    if reply.texts:
        yield {"type": "text", "text": "".join(reply.texts)}
    for call in reply.tool_calls:
        function = call["function"]
        id_ = "toolu_" + call["id"].removeprefix("call_")
        yield {"type": "tool_use", "id": id_, "name": function["name"], "input": json.loads(function["arguments"])}


def _usage(payload: Json, reply: MockReply, options: Options) -> Json:
    """Return the usage. What `cache_control` marks is written in the first turn, and read in later ones."""
    thought = sum(map(count_tokens, _THOUGHTS)) if any(True for _ in _thinking(payload, options)) else 0
    cached = sum(map(_count_block, _cached_blocks(payload)))
    is_first = not any(message["role"] == "assistant" for message in payload["messages"])
    return {
        "input_tokens": _count_prompt(payload) - cached,
        "cache_creation_input_tokens": cached if is_first else 0,
        "cache_read_input_tokens": 0 if is_first else cached,
        "output_tokens": thought + len(reply.texts) + 10 * len(reply.tool_calls),
        "output_tokens_details": {"thinking_tokens": thought},
        "service_tier": "standard",
    }


def _cached_blocks(payload: Json) -> list[Json]:
    """Return the tools and the system blocks that `cache_control` marks."""
    system = payload.get("system")
    blocks = [*(payload.get("tools") or []), *(system if isinstance(system, list) else [])]
    return [block for block in blocks if block.get("cache_control")]


def _count_block(block: Json) -> int:
    return 4 + sum(count_tokens(block.get(key) or "") for key in ("text", "name", "description"))


def _count_prompt(payload: Json) -> int:
    system = payload.get("system") or []
    blocks = [{"text": system}] if isinstance(system, str) else system
    texts = sum(4 + count_tokens(text_of(message)) for message in payload["messages"])
    return texts + sum(map(_count_block, [*blocks, *(payload.get("tools") or [])]))


def _events(message: Json, texts: Sequence[str]) -> Iterator[Json]:
    """Yield the events of a stream. The one at the start has all counts but that of the answer."""
    usage = message["usage"]
    opened: Json = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": {**usage, "output_tokens": 1}}
    yield {"type": "message_start", "message": {**message, **opened}}
    yield {"type": "ping"}
    for index, block in enumerate(message["content"]):
        yield {"type": "content_block_start", "index": index, "content_block": _opened(block)}
        for delta in _deltas(block, texts):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    yield {"type": "message_delta", "delta": ending, "usage": usage}
    yield {"type": "message_stop"}


def _opened(block: Json) -> Json:
    """Return a block before its first delta. A redacted one is complete from the start."""
    empty: dict[str, Json] = {
        "text": {"text": ""},
        "thinking": {"thinking": "", "signature": ""},
        "tool_use": {"input": {}},
    }
    return {**block, **empty.get(block["type"], {})}


def _deltas(block: Json, texts: Sequence[str]) -> Iterator[Json]:
    match block["type"]:
        case "text":
            yield from ({"type": "text_delta", "text": text} for text in texts)
        case "thinking":
            yield from ({"type": "thinking_delta", "thinking": thought} for thought in _THOUGHTS)
            yield {"type": "signature_delta", "signature": block["signature"]}
        case "tool_use":
            arguments = json.dumps(block["input"], ensure_ascii=False)
            yield {"type": "input_json_delta", "partial_json": ""}
            for start in range(0, len(arguments), 8):
                yield {"type": "input_json_delta", "partial_json": arguments[start : start + 8]}
