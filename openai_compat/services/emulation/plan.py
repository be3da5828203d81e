"""Decision on what of a chat call is emulated or dropped, because the model or its configuration demands it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from openai_compat.backends.base import Backend
from openai_compat.core.errors import UnsupportedParameterError
from openai_compat.core.profiles import DROPPED, record_adaptations
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import JSON, CallContext, ChatDelta, ChatRequest

from .deltas import read_emulated
from .structured_output import AnswerFormat, to_format
from .tool_prompt import add_instructions, has_tool_messages, write_tools
from .tool_rules import ToolRules, requires_call, to_rules

EMULATED: Final = "emulated"
LEGACY_NAMES: Final = {"tools": "functions", "tool_choice": "function_call"}
_TOOL_PARAMETERS: Final = ("tools", "tool_choice", "parallel_tool_calls")


@dataclass(frozen=True, slots=True)
class EmulatedChat:
    """A chat request as the backend gets it, and how its answer is read."""

    request: ChatRequest
    rules: ToolRules | None = None
    format: AnswerFormat | None = None

    def read(self, deltas: Iterator[ChatDelta | Heartbeat], context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        """Return the deltas for the client. They are the backend's own if nothing is emulated."""
        if self.rules is None and self.format is None:
            return deltas
        return read_emulated(deltas, self.rules, self.format, context.heartbeat_interval)


def emulate(
    backend: Backend, request: ChatRequest, supported: frozenset[str], context: CallContext, *, is_legacy: bool
) -> EmulatedChat:
    """Return a request without what the model cannot do. The response header lists what was changed.

    `supported` are the parameters that the backend supports. `is_legacy` is True for a client that names its tools
    `functions`.

    Raises:
        UnsupportedParameterError: the client requires a call of a tool, and the tools are dropped.
        InvalidRequestError: `tool_choice` names a tool that the request does not have.
    """
    chat = EmulatedChat(request)
    if backend.entry.tools == "prompt":
        chat = _emulate_tools(chat)
    elif "tools" in request.parameters and (backend.entry.tools == "drop" or "tools" not in supported):
        chat = _drop_tools(chat, is_legacy=is_legacy)
    if backend.entry.response_format == "prompt":
        chat = _emulate_format(chat)
    if chat.request is not request:
        record_adaptations(_adaptations(request, chat, is_legacy=is_legacy), context.reply_headers)
    return chat


def _drop_tools(chat: EmulatedChat, *, is_legacy: bool) -> EmulatedChat:
    parameters = chat.request.parameters
    if requires_call(parameters.get("tool_choice")):
        raise UnsupportedParameterError(
            _client_name("tool_choice", is_legacy=is_legacy),
            chat.request.model,
            "it calls no tools, so that a call cannot be required. Set `tools: prompt` in its entry of the models "
            "file to emulate them.",
        )
    return replace(chat, request=_with(chat.request, without=_TOOL_PARAMETERS))


def _emulate_tools(chat: EmulatedChat) -> EmulatedChat:
    """Return a request with the tools in its messages. Calls and results of earlier turns are written out too."""
    request = chat.request
    tools = request.parameters.get("tools")
    if not tools and not has_tool_messages(request.messages):
        return chat
    allows_many = request.parameters.get("parallel_tool_calls") is not False
    rules = to_rules(tools or (), request.parameters.get("tool_choice"), allows_many=allows_many)
    messages = write_tools(request.messages, rules)
    return replace(chat, request=_with(request, messages=messages, without=_TOOL_PARAMETERS), rules=rules)


def _emulate_format(chat: EmulatedChat) -> EmulatedChat:
    format_ = to_format(chat.request.parameters.get("response_format") or {})
    if format_ is None:
        return chat
    instructions = format_.describe()
    if chat.rules is not None:
        instructions = f"If you call no tool, these rules apply. {instructions}"
    messages = add_instructions(chat.request.messages, instructions)
    return replace(chat, request=_with(chat.request, messages=messages, without=("response_format",)), format=format_)


def _with(request: ChatRequest, *, without: Sequence[str], messages: Sequence[Any] | None = None) -> ChatRequest:
    kept: JSON = {name: value for name, value in request.parameters.items() if name not in without}
    return replace(request, messages=request.messages if messages is None else messages, parameters=kept)


def _adaptations(request: ChatRequest, chat: EmulatedChat, *, is_legacy: bool) -> Mapping[str, str]:
    removed = [name for name in request.parameters if name not in chat.request.parameters]
    how = {name: EMULATED for name in _TOOL_PARAMETERS if chat.rules is not None} | {"response_format": EMULATED}
    sent = [name for name in removed if not (is_legacy and name == "parallel_tool_calls")]
    return {_client_name(name, is_legacy=is_legacy): how.get(name, DROPPED) for name in sent}


def _client_name(parameter: str, *, is_legacy: bool) -> str:
    """Return a parameter's name in the client's request."""
    return LEGACY_NAMES.get(parameter, parameter) if is_legacy else parameter
