"""Chat templates, which turn conversations into prompts, and the translation of the answers into chat deltas."""

from __future__ import annotations

import inspect
import json
import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from jinja2 import TemplateError

from openai_compat.core.errors import InternalError, InvalidAnswerError, InvalidRequestError
from openai_compat.core.types import ChatDelta, ChatRequest, FinishReason, JSONObject, TokenLogprob
from openai_compat.services.emulation.tool_prompt import has_tool_messages, write_tools
from openai_compat.services.emulation.tool_rules import allowed_names, requires_call, to_rules

from .sequence import TextChunk
from .tool_formats import HERMES, ToolCallParser, ToolFormat, find_tool_format

log = logging.getLogger(__name__)
ANY_JSON_OBJECT: Final = {"type": "object"}


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """Options for parsing the tool calls of an answer.

    With `may_stream`, the arguments of calls that are constrained are returned in parts. `names` are the names
    of the request's tools.
    """

    format: ToolFormat
    is_forced: bool
    allows_many: bool
    may_stream: bool
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation as text, with the constraints on its answer.

    `schema` is the JSON schema that the answer must match, and `schema_param` the request's parameter that asks for it.
    With a `trigger`, only the text behind each occurrence of it must match. With an `answer_schema`, the answer matches
    either that or consists of calls that match `schema`.
    """

    text: str
    schema: Mapping[str, Any] | None = None
    schema_param: str = ""
    trigger: str = ""
    answer_schema: Mapping[str, Any] | None = None
    tools: ToolOptions | None = None


class ChatTemplate:
    """Chat template of one model's tokenizer.

    With `emulates_tools`, the tools are described in the system prompt instead, for templates without tools.
    """

    def __init__(self, tokenizer: Any, *, emulates_tools: bool = False) -> None:
        self._tokenizer = tokenizer
        self._emulates_tools = emulates_tools
        template = str(tokenizer.chat_template)
        self.tool_format = HERMES if emulates_tools else find_tool_format(template)
        self._knows_developer = "developer" in template
        parameters = inspect.signature(tokenizer.apply_chat_template).parameters.values()
        self._reserved_options = frozenset(
            parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD
        ) - {"documents"}

    def render(self, request: ChatRequest) -> ChatPrompt:
        """Return the conversation as the model's prompt.

        Raises:
            InvalidRequestError: a message has other content than text, the template rejects the conversation, or
                `continue_final_message` is set without a last message of the assistant, or `chat_template_kwargs` has a
                name that only the server may set.
            InternalError: the template fails.
        """
        parameters = request.parameters
        choice = parameters.get("tool_choice", "auto")
        tools = None if choice == "none" else _check_tools(parameters.get("tools"))
        messages = [self._to_template_message(message, index) for index, message in enumerate(self._written(request))]
        options = self._template_options(parameters, messages)
        text = self._apply(messages, None if self._emulates_tools else tools, options)
        if tools is None or self.tool_format is None:
            return ChatPrompt(text, _answer_schema(parameters.get("response_format") or {}), "response_format")
        tool_options = _to_options(tools, parameters, self.tool_format)
        prompt = _with_tools(ChatPrompt(text, schema_param="tools", tools=tool_options), _allowed_tools(tools, choice))
        answer_schema = None if tool_options.is_forced else _answer_schema(parameters.get("response_format") or {})
        return replace(prompt, answer_schema=answer_schema)

    def _written(self, request: ChatRequest) -> Sequence[JSONObject]:
        """Return the messages, with tools, calls and results as text if the template has no form for them."""
        parameters = request.parameters
        if not self._emulates_tools or not ("tools" in parameters or has_tool_messages(request.messages)):
            return request.messages
        allows_many = parameters.get("parallel_tool_calls") is not False
        rules = to_rules(parameters.get("tools", ()), parameters.get("tool_choice"), allows_many=allows_many)
        return write_tools(request.messages, rules)

    def _to_template_message(self, message: JSONObject, index: int) -> dict[str, Any]:
        """Return a message as templates expect it, with content as a string and a call's arguments as an object.

        Messages of the role `developer` get the role `system` if the template does not know the former.
        """
        converted = {**message, "content": _to_text(message.get("content"), index)}
        if message["role"] == "developer" and not self._knows_developer:
            converted["role"] = "system"
        if message.get("tool_calls"):
            converted["tool_calls"] = [_to_template_call(call) for call in message["tool_calls"]]
        return converted

    def _template_options(self, parameters: Mapping[str, Any], messages: Sequence[JSONObject]) -> JSONObject:
        """Return the template's options.

        The prompt opens a new message of the assistant, or continues the last one if `continue_final_message` is set
        (the name is vLLM's).
        """
        given = parameters.get("chat_template_kwargs") or {}
        if not isinstance(given, Mapping):
            raise InvalidRequestError("'chat_template_kwargs' must be an object.", param="chat_template_kwargs")
        reserved = next((name for name in given if name in self._reserved_options), None)
        if reserved is not None:
            message = f"'chat_template_kwargs' must not have '{reserved}', which only the server may set."
            raise InvalidRequestError(message, param="chat_template_kwargs")
        continues = parameters.get("continue_final_message") is True
        if continues and not (messages[-1]["role"] == "assistant" and messages[-1].get("content")):
            message = "'continue_final_message' needs a last message of the role 'assistant' with a text."
            raise InvalidRequestError(message, param="continue_final_message")
        return {**given, "continue_final_message": continues, "add_generation_prompt": not continues}

    def _apply(self, messages: Sequence[Any], tools: Any, options: Mapping[str, Any]) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(messages, **{**options, "tools": tools, "tokenize": False})
        except TemplateError as error:
            if type(error) is not TemplateError:
                log.exception("The chat template failed")
                raise InternalError("The model's chat template failed on this conversation.") from error
            # The template called `raise_exception`, by which templates reject a conversation.
            raise InvalidRequestError(
                f"The model's chat template rejects this conversation: {error}", param="messages"
            ) from error
        except Exception as error:
            log.exception("The chat template failed")
            raise InternalError("The model's chat template failed on this conversation.") from error
        return text


class ChatDeltaBuilder:
    """Builder of a chat's deltas, which separates content from tool calls in each sequence's text."""

    def __init__(self, tools: ToolOptions | None, *, is_constrained: bool) -> None:
        self._tools = tools
        self._is_constrained = is_constrained
        self._parsers: dict[int, ToolCallParser] = {}
        self._held_logprobs: dict[int, tuple[TokenLogprob, ...]] = {}
        """Log probabilities of each sequence's text that its parser holds."""

    def build(self, chunk: TextChunk, *, is_last: bool) -> Iterable[ChatDelta]:
        """Return the delta of a chunk, if it has any.

        Raises:
            InvalidAnswerError: a call whose beginning was returned is broken.
        """
        if self._tools is None:
            delta = ChatDelta(chunk.text or None, chunk.index, chunk.finish_reason, logprobs=chunk.logprobs)
        else:
            delta = self._parse_calls(chunk, self._tools)
        if delta.content or delta.tool_calls or delta.finish_reason or delta.logprobs:
            yield delta

    def _parse_calls(self, chunk: TextChunk, tools: ToolOptions) -> ChatDelta:
        parser = self._parsers.get(chunk.index)
        if parser is None:
            streams = tools.may_stream and self._is_constrained
            parser = ToolCallParser(
                tools.format,
                is_forced=tools.is_forced,
                allows_many=tools.allows_many,
                streams=streams,
                names=tools.names,
            )
            self._parsers[chunk.index] = parser
        content, calls = parser.push(chunk.text)
        finish_reason: FinishReason | None = chunk.finish_reason
        if chunk.finish_reason is not None:
            rest, more = parser.flush()
            content, calls = content + rest, calls + more
            if parser.is_cut and chunk.finish_reason == "stop":
                raise InvalidAnswerError("The model's tool call ended before it was complete.")
            if parser.call_count and chunk.finish_reason == "stop":
                finish_reason = "tool_calls"
        calls = [replace(call, id=f"call_{secrets.token_hex(12)}") if call.id else call for call in calls]
        logprobs = self._take_logprobs(chunk, parser, has_content=bool(content), has_calls=bool(calls))
        return ChatDelta(content or None, chunk.index, finish_reason, calls, logprobs=logprobs)

    def _take_logprobs(
        self, chunk: TextChunk, parser: ToolCallParser, *, has_content: bool, has_calls: bool
    ) -> tuple[TokenLogprob, ...]:
        """Return the log probabilities of the content. Those of calls are dropped, and those of held text are kept."""
        held = () if has_calls and not has_content else self._held_logprobs.pop(chunk.index, ())
        logprobs = (*held, *chunk.logprobs)
        if has_content:
            return logprobs
        # A token without text is the beginning of a character.
        self._held_logprobs[chunk.index] = logprobs if parser.has_held_text or not chunk.text else ()
        return ()


def _answer_schema(response_format: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the schema of an answer in JSON, or None for text."""
    if response_format.get("type") == "json_object":
        return ANY_JSON_OBJECT
    if response_format.get("type") != "json_schema":
        return None
    schema: Mapping[str, Any] = (response_format.get("json_schema") or {}).get("schema", ANY_JSON_OBJECT)
    return schema


def _with_tools(prompt: ChatPrompt, tools: Sequence[JSONObject]) -> ChatPrompt:
    """Return the prompt with the constraint on calls of these tools. A forced call begins in the prompt.

    A call that is not forced is constrained by the mark at its beginning.
    """
    options = prompt.tools
    assert options is not None  # noqa: S101 - the caller sets it
    schema = options.format.schema(tools, allows_many=options.allows_many and not options.is_forced)
    if options.is_forced:
        return replace(prompt, text=prompt.text + options.format.begin, schema=schema)
    return replace(prompt, schema=schema, trigger=options.format.begin)


def _to_options(tools: Sequence[JSONObject], parameters: Mapping[str, Any], format_: ToolFormat) -> ToolOptions:
    """Return how the calls of an answer are parsed.

    They may be streamed if their beginning has a mark, and if their arguments are objects, which end with the last
    brace. A stop string could end them anywhere.
    """
    is_forced = requires_call(parameters.get("tool_choice", "auto"))
    allows_many = parameters.get("parallel_tool_calls") is not False
    schemas = [tool["function"].get("parameters") or ANY_JSON_OBJECT for tool in tools]
    are_objects = all(schema.get("type") == "object" for schema in schemas)
    names = frozenset(tool["function"]["name"] for tool in tools)
    may_stream = (is_forced or bool(format_.begin)) and are_objects and not parameters.get("stop")
    return ToolOptions(format_, is_forced, allows_many, may_stream, names)


def _check_tools(tools: Sequence[JSONObject] | None) -> Sequence[JSONObject] | None:
    for index, tool in enumerate(tools or ()):
        if tool.get("type") != "function":
            message = "Local models take only tools of the type 'function'."
            raise InvalidRequestError(message, param=f"tools[{index}].type")
    return tools


def _allowed_tools(tools: Sequence[JSONObject], tool_choice: Any) -> Sequence[JSONObject]:
    """Return the tools that a call may use.

    Raises:
        InvalidRequestError: `tool_choice` names a tool that the request does not have.
    """
    allowed = allowed_names(tool_choice)
    if allowed is None:
        return tools
    known = {tool["function"]["name"]: tool for tool in tools}
    unknown = next((name for name in allowed if name not in known), None)
    if unknown is not None:
        raise InvalidRequestError(f"Invalid 'tool_choice': there is no tool '{unknown}'.", param="tool_choice")
    return [known[name] for name in allowed]


def _to_text(content: Any, index: int) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    others = [part.get("type") for part in content if part.get("type") != "text"]
    if others:
        message = f"This model accepts only text, and message {index} has a part of the type '{others[0]}'."
        raise InvalidRequestError(message, param=f"messages[{index}].content")
    return "".join(part["text"] for part in content)


def _to_template_call(call: JSONObject) -> dict[str, Any]:
    function = dict(call.get("function") or {})
    with suppress(ValueError):
        function["arguments"] = json.loads(function.get("arguments") or "{}")
    return {**call, "function": function}
