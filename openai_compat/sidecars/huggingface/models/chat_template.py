"""Conversations through a tokenizer's chat template, and the answers back: content, tool calls, JSON."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from jinja2 import TemplateError

from openai_compat.core.errors import InternalError, InvalidRequestError
from openai_compat.core.types import ChatDelta, ChatRequest, FinishReason, JSONObject

from .sequence import TextChunk
from .tool_formats import ToolCallParser, ToolFormat, find_tool_format

log = logging.getLogger(__name__)
ANY_OBJECT: Final = {"type": "object"}


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """How the answer's tool calls are read."""

    format: ToolFormat
    is_forced: bool
    takes_many: bool


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation as text; `schema` is what the answer must be in JSON, by the parameter `schema_param`."""

    text: str
    schema: Mapping[str, Any] | None = None
    schema_param: str = ""
    tools: ToolOptions | None = None


class ChatTemplate:
    """The chat template of one model."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.tool_format = find_tool_format(str(tokenizer.chat_template))

    def render(self, request: ChatRequest) -> ChatPrompt:
        """The conversation as the model was taught to read it.

        Raises:
            PayloadError: a message has other content than text, the template refuses the conversation, or there is no
                message of the assistant's to go on with.
            InternalError: the template fails.
        """
        parameters = request.parameters
        choice = parameters.get("tool_choice", "auto")
        tools = None if choice == "none" else parameters.get("tools")
        messages = [_to_template_message(message, place) for place, message in enumerate(request.messages)]
        text = self._apply(messages, tools, _template_options(parameters, messages))
        if tools is None or self.tool_format is None:
            return _with_format(ChatPrompt(text), parameters.get("response_format") or {})
        takes_many = parameters.get("parallel_tool_calls") is not False
        if choice == "auto":
            use = ToolOptions(self.tool_format, is_forced=False, takes_many=takes_many)
            return ChatPrompt(text, tools=use)
        use = ToolOptions(self.tool_format, is_forced=True, takes_many=takes_many)
        schema = self.tool_format.schema(_chosen(tools, choice))
        return ChatPrompt(text + self.tool_format.begin, schema, "tools", use)

    def _apply(self, messages: Sequence[Any], tools: Any, more: Mapping[str, Any]) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(messages, **{**more, "tools": tools, "tokenize": False})
        except TemplateError as error:
            if type(error) is not TemplateError:
                log.exception("The chat template failed")
                raise InternalError("The model's chat template failed on this conversation.") from error
            # `raise_exception` in a template: the conversation is not one the model knows.
            raise InvalidRequestError(
                f"The model's chat template refuses this conversation: {error}", param="messages"
            ) from error
        except Exception as error:
            log.exception("The chat template failed")
            raise InternalError("The model's chat template failed on this conversation.") from error
        return text


class ChatDeltaBuilder:
    """A chat's pieces as deltas; the tool calls in each choice's text are told apart."""

    def __init__(self, tools: ToolOptions | None) -> None:
        self._tools = tools
        self._parsers: dict[int, ToolCallParser] = {}

    def read(self, piece: TextChunk, *, is_last: bool) -> Iterable[ChatDelta]:
        if self._tools is None:
            delta = ChatDelta(piece.text or None, piece.choice, piece.finish_reason, logprobs=piece.logprobs)
        else:
            delta = self._with_calls(piece, self._tools)
        if delta.content or delta.tool_calls or delta.finish_reason or delta.logprobs:
            yield delta

    def _with_calls(self, piece: TextChunk, tools: ToolOptions) -> ChatDelta:
        parser = self._parsers.get(piece.choice)
        if parser is None:
            parser = ToolCallParser(tools.format, is_forced=tools.is_forced, takes_many=tools.takes_many)
            self._parsers[piece.choice] = parser
        content, calls = parser.push(piece.text)
        finish: FinishReason | None = piece.finish_reason
        if piece.finish_reason is not None:
            rest, more = parser.flush()
            content, calls = content + rest, calls + more
            if parser.calls and piece.finish_reason == "stop":
                finish = "tool_calls"
        named = [replace(call, id=f"call_{secrets.token_hex(12)}") for call in calls]
        return ChatDelta(content or None, piece.choice, finish, named, logprobs=piece.logprobs if content else ())


def _template_options(parameters: Mapping[str, Any], messages: Sequence[JSONObject]) -> JSONObject:
    """What goes to the template: it begins a message of the assistant's, or goes on with the last one
    (`continue_final_message`, as vLLM calls it).
    """
    given = parameters.get("chat_template_kwargs") or {}
    if not isinstance(given, Mapping):
        raise InvalidRequestError("'chat_template_kwargs' must be an object.", param="chat_template_kwargs")
    goes_on = parameters.get("continue_final_message") is True
    if goes_on and not (messages[-1]["role"] == "assistant" and messages[-1].get("content")):
        message = "'continue_final_message' needs a last message of the assistant's that has a text."
        raise InvalidRequestError(message, param="continue_final_message")
    return {**given, "continue_final_message": goes_on, "add_generation_prompt": not goes_on}


def _with_format(prompt: ChatPrompt, response_format: Mapping[str, Any]) -> ChatPrompt:
    kind = response_format.get("type", "text")
    if kind == "json_object":
        return replace(prompt, schema=ANY_OBJECT, schema_param="response_format")
    if kind == "json_schema":
        schema = (response_format.get("json_schema") or {}).get("schema", ANY_OBJECT)
        return replace(prompt, schema=schema, schema_param="response_format")
    return prompt


def _chosen(tools: Sequence[JSONObject], choice: Any) -> Sequence[JSONObject]:
    """The tools among which a forced call may choose."""
    if not isinstance(choice, Mapping):
        return tools
    name = (choice.get("function") or {}).get("name")
    named = [tool for tool in tools if tool["function"]["name"] == name]
    if not named:
        raise InvalidRequestError(f"Invalid 'tool_choice': there is no tool '{name}'.", param="tool_choice")
    return named


def _to_template_message(message: JSONObject, place: int) -> dict[str, Any]:
    """A message as templates expect it: content as one text, a call's arguments as an object."""
    converted = {**message, "content": _to_text(message.get("content"), place)}
    if message.get("tool_calls"):
        converted["tool_calls"] = [_to_template_call(call) for call in message["tool_calls"]]
    return converted


def _to_text(content: Any, place: int) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    others = [part.get("type") for part in content if part.get("type") != "text"]
    if others:
        message = f"This model reads text alone, and message {place} has a part of the type '{others[0]}'."
        raise InvalidRequestError(message, param=f"messages[{place}].content")
    return "".join(part["text"] for part in content)


def _to_template_call(call: JSONObject) -> dict[str, Any]:
    function = dict(call.get("function") or {})
    with suppress(ValueError):
        function["arguments"] = json.loads(function.get("arguments") or "{}")
    return {**call, "function": function}
