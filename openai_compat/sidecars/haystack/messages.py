"""OpenAI's messages and Haystack's, one into the other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from haystack.dataclasses import ChatMessage, StreamingChunk

from openai_compat.backends.parsing.openai_chat import read_content
from openai_compat.core.types import JSONObject

RAW = "openai_message"
SYSTEM_ROLES = frozenset({"system", "developer"})


class ClientMessage(ChatMessage):
    """A client's message, which goes to a model as it came: Haystack's own form has no place for some of it, such as
    an image by its address, a sound, or the role `developer`.
    """

    def to_openai_dict_format(self, require_tool_call_ids: bool = True) -> dict[str, Any]:
        raw: dict[str, Any] = self.meta[RAW]
        return raw


def to_chat_message(message: JSONObject) -> ChatMessage:
    """Haystack's form of a client's message; what has no place there is only in its raw form."""
    try:
        converted = ClientMessage.from_openai_dict_format(dict(message))
    except ValueError:
        converted = ClientMessage.from_openai_dict_format({**message, "content": text_of(message) or " "})
    converted.meta[RAW] = dict(message)
    return converted


def text_of(message: JSONObject) -> str:
    """The text of a client's message, from whatever parts it has."""
    return read_content(message.get("content"))[0]


def to_openai_message(message: ChatMessage) -> dict[str, Any]:
    """An answer as OpenAI has it."""
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.tool_name, "arguments": json.dumps(call.arguments)},
        }
        for call in message.tool_calls
    ]
    reasoning = message.reasoning.reasoning_text if message.reasoning else None
    found = {"content": message.text, "tool_calls": calls, "reasoning_content": reasoning}
    return {"role": "assistant", **{name: value for name, value in found.items() if value}}


def to_openai_chunk(chunk: StreamingChunk, *, with_tools: bool) -> dict[str, Any]:
    """A streamed piece as OpenAI has it, without its end and its usage, which are known for sure at the end only."""
    delta: dict[str, Any] = {}
    if chunk.content and chunk.tool_call_result is None:
        delta["content"] = chunk.content
    if chunk.reasoning is not None:
        delta["reasoning_content"] = chunk.reasoning.reasoning_text
    if chunk.tool_calls and with_tools:
        delta["tool_calls"] = [
            {"index": call.index, "id": call.id, "function": {"name": call.tool_name, "arguments": call.arguments}}
            for call in chunk.tool_calls
        ]
    return {"choices": [{"index": 0, "delta": delta, "logprobs": chunk.meta.get("logprobs")}]}


def query_of(messages: Sequence[JSONObject]) -> str | None:
    """What the user said last, as text; None where no user has spoken."""
    return next((text_of(message) for message in reversed(messages) if message.get("role") == "user"), None)


def split_system(messages: Sequence[Mapping[str, Any]]) -> tuple[list[JSONObject], list[JSONObject]]:
    """The instructions, and the turns."""
    system = [message for message in messages if message.get("role") in SYSTEM_ROLES]
    turns = [message for message in messages if message.get("role") not in SYSTEM_ROLES]
    return system, turns
