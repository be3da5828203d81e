"""Requests of the Responses API as chat payloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from openai_compat.core.profiles import DROPPED
from openai_compat.core.types import JSON
from openai_compat.services.adaptations import to_shown
from openai_compat.services.request_fields import list_at, missing_parameter, object_at, text_at, unsupported

from .items import MessageBuilder, OpenReasoning, type_of
from .tools import ToolMap, to_tool_choice, to_tool_map

COPIED: Final = (
    "temperature", "top_p", "user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention",
)  # fmt: skip
"""Parameters with the same name in chat."""
CHAT_ONLY: Final = ("frequency_penalty", "presence_penalty", "seed", "stop", "logit_bias")
"""Chat parameters that clients send as additional ones."""
REFUSED: Final = {
    "prompt": "names a prompt that is stored at OpenAI, which this model cannot read",
    "context_management": "is not supported with this model",
    "moderation": "is not supported with this model",
}
"""Parameters that change the answer, and that no chat model has."""
HANDLED: Final = frozenset(
    {
        "model", "input", "instructions", "max_output_tokens", "max_tool_calls", "parallel_tool_calls", "tools",
        "tool_choice", "text", "reasoning", "top_logprobs", "truncation", "store", "previous_response_id",
        "conversation", "background", "background_options", "include", "stream", "stream_options", "client_metadata",
        *COPIED, *CHAT_ONLY, *REFUSED,
    }
)  # fmt: skip
"""Parameters that are translated, or that ask for nothing from the model."""
LOGPROBS: Final = "message.output_text.logprobs"
ENCRYPTED_REASONING: Final = "reasoning.encrypted_content"


@dataclass(frozen=True, slots=True)
class TranslatedRequest:
    """The chat payload of a request, its tools, and what of the request the payload could not express."""

    chat: Mapping[str, Any]
    tools: ToolMap
    adaptations: Mapping[str, str]


def includes(payload: Mapping[str, Any], value: str) -> bool:
    """Return True if the client asked for an additional part of the output."""
    return value in (payload.get("include") or ())


def wants_summary(payload: Mapping[str, Any]) -> bool:
    """Return True if the client asked for a summary of the reasoning."""
    reasoning = payload.get("reasoning") or {}
    return (reasoning.get("summary") or reasoning.get("generate_summary")) is not None


def translate_request(
    payload: Mapping[str, Any], stored: Sequence[Any], items: Sequence[Any], open_reasoning: OpenReasoning
) -> TranslatedRequest:
    """Return the chat call for a request. `stored` has the items that precede its input, and `items` are its input.

    Raises:
        InvalidRequestError: a part of it is malformed, or cannot be honoured by a chat model.
    """
    _refuse(payload)
    tools = to_tool_map(_all_tools(payload, items))
    builder = MessageBuilder(open_reasoning)
    builder.add_all(stored, "context")
    builder.add_all(items)
    messages = builder.build(payload.get("instructions"))
    if not messages:
        raise missing_parameter("input")
    chat: JSON = {"model": payload.get("model"), "messages": messages}
    chat["stream"] = payload.get("stream") is True
    chat.update({name: payload[name] for name in (*COPIED, *CHAT_ONLY) if payload.get(name) is not None})
    chat.update(_generation(payload))
    chat.update(_tool_parameters(payload, tools))
    adaptations = {**tools.adaptations(), **builder.adaptations, **_adaptations(payload)}
    return TranslatedRequest(chat, tools, to_shown(adaptations))


def _refuse(payload: Mapping[str, Any]) -> None:
    if payload.get("background") and payload.get("store") is False:
        raise unsupported("background", "needs a stored response: send the request without 'store: false'")
    for name, reason in REFUSED.items():
        if payload.get(name) not in (None, [], {}):
            raise unsupported(name, reason)


def _all_tools(payload: Mapping[str, Any], items: Sequence[Any]) -> list[Any]:
    """Return the tools of the request, and those that stand among its items.

    Raises:
        InvalidRequestError: the tools of an item are no list.
    """
    tools = list(payload.get("tools") or ())
    for index, item in enumerate(items):
        if isinstance(item, dict) and type_of(item) == "additional_tools":
            tools += list_at(item, "tools", f"input[{index}]")
    return tools


def _generation(payload: Mapping[str, Any]) -> JSON:
    """Return the parameters that have another name or place in chat."""
    text, reasoning = payload.get("text") or {}, payload.get("reasoning") or {}
    found: JSON = {
        "max_completion_tokens": payload.get("max_output_tokens"),
        "verbosity": text.get("verbosity"),
        "reasoning_effort": reasoning.get("effort"),
        "response_format": _to_response_format(text.get("format")),
    }
    if includes(payload, LOGPROBS):
        found |= {"logprobs": True, "top_logprobs": payload.get("top_logprobs") or None}
    return {name: value for name, value in found.items() if value is not None}


def _to_response_format(format_: Any) -> JSON | None:
    if format_ is None:
        return None
    kind = text_at(object_at(format_, "text.format"), "type", "text.format")
    if kind != "json_schema":
        return {"type": kind}
    text_at(format_, "name", "text.format")
    object_at(format_.get("schema"), "text.format.schema")
    keys = ("name", "schema", "strict", "description")
    return {"type": kind, kind: {key: format_[key] for key in keys if format_.get(key) is not None}}


def _tool_parameters(payload: Mapping[str, Any], tools: ToolMap) -> JSON:
    choice = to_tool_choice(payload.get("tool_choice"), tools)
    if not tools.definitions:
        return {}
    found = {
        "tools": tools.definitions,
        "tool_choice": choice,
        "parallel_tool_calls": payload.get("parallel_tool_calls"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _adaptations(payload: Mapping[str, Any]) -> dict[str, str]:
    unknown = {name: DROPPED for name, value in payload.items() if name not in HANDLED and value is not None}
    return unknown | ({"truncation": DROPPED} if payload.get("truncation") == "auto" else {})
