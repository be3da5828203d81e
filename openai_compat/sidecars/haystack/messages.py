"""Conversion between OpenAI's messages and Haystack's."""

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
    """A client's message, which reaches a model unchanged.

    Haystack's own form cannot represent all of OpenAI's, such as image URLs, audio, or the role `developer`.
    """

    def to_openai_dict_format(self, require_tool_call_ids: bool = True) -> dict[str, Any]:
        """Return the message as the client sent it. Haystack's generators call this method."""
        raw: dict[str, Any] = self.meta[RAW]
        return raw


def to_chat_message(message: JSONObject) -> ChatMessage:
    """Return Haystack's form of a client's message. What Haystack cannot represent is kept in the raw form only.

    That can be images, arguments of a call that are no JSON, or the role `function`.
    """
    try:
        converted = ClientMessage.from_openai_dict_format(dict(message))
    except ValueError:
        role = message["role"] if message["role"] in {"assistant", *SYSTEM_ROLES} else "user"
        converted = ClientMessage.from_openai_dict_format({"role": role, "content": text_of(message) or " "})
    converted.meta[RAW] = dict(message)
    return converted


def text_of(message: JSONObject) -> str:
    """Return the text parts of a client's message."""
    return read_content(message.get("content"))[0]


def to_openai_message(message: ChatMessage) -> dict[str, Any]:
    """Return OpenAI's form of an answer."""
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.tool_name, "arguments": json.dumps(call.arguments)},
        }
        for call in message.tool_calls
    ]
    reasoning = message.reasoning.reasoning_text if message.reasoning else None
    fields = {"content": message.text, "tool_calls": calls, "reasoning_content": reasoning}
    return {"role": "assistant", **{name: value for name, value in fields.items() if value}}


def to_openai_chunk(chunk: StreamingChunk, *, with_tools: bool) -> dict[str, Any]:
    """Return OpenAI's form of a streamed chunk.

    Finish reason and usage are left out, because they are final only when the pipeline has ended.
    """
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


def last_user_text(messages: Sequence[JSONObject]) -> str | None:
    """Return the text of the last message with the role `user`, or None if there is none."""
    return next((text_of(message) for message in reversed(messages) if message.get("role") == "user"), None)


def split_system(messages: Sequence[Mapping[str, Any]]) -> tuple[list[JSONObject], list[JSONObject]]:
    """Return the system messages and the other messages."""
    system = [message for message in messages if message.get("role") in SYSTEM_ROLES]
    turns = [message for message in messages if message.get("role") not in SYSTEM_ROLES]
    return system, turns
