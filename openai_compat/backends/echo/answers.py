"""Answers of the echo model, which are the user's text, a generated tool call or a generated structured output."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from zlib import crc32

from openai_compat.backends.parameter_checks import stops_of
from openai_compat.core.errors import InvalidRequestError, UnsupportedParameterError
from openai_compat.core.types import ChatRequest, FinishReason, JSONObject, TokenLogprob

from .limits import CooperativeTokenizer
from .schema_faker import NoExampleError, generate_example

PART_PLACEHOLDERS: Final[Mapping[str, str]] = {"image_url": "[image]", "input_audio": "[audio]", "file": "[file]"}
"""Text that stands for a content part of another type."""

ALTERNATIVE_TOKENS: Final = (
    *(" the", " of", " and", " to", " in", " is", " that", " it", " for", " on", " with"),
    *(" as", " at", " by", " from", " or", " an", " be", " this", " not", " are"),
)
"""Alternatives in `top_logprobs`. One more than the maximum of `top_logprobs`, since the token itself may be one."""

MAX_COMPARED_CHARS: Final = 4_000
"""Characters of the text and of each tool's description that are compared to choose a tool."""

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call. `arguments` is JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class EchoAnswer:
    """One choice. `tokens` are those of the text, or of the arguments of `call`."""

    tokens: Sequence[str]
    finish_reason: FinishReason
    call: ToolCall | None = None


def answer_chat(request: ChatRequest, limit: int, tokenizer: CooperativeTokenizer) -> EchoAnswer:
    """Return the answer to a conversation, cut after `limit` tokens.

    Raises:
        InvalidRequestError: `tool_choice` names no tool of the request.
        UnsupportedParameterError: no example could be generated for a tool or a schema.
    """
    call = _generate_call(request)
    if call is not None:
        tokens = tokenizer.first(call.arguments, limit + 1)
        return EchoAnswer(tokens[:limit], "length" if len(tokens) > limit else "tool_calls", call)
    text = _response_text(request)
    return answer_text(text, tokenizer.first(text, limit + 1), stops_of(request.parameters), limit)


def answer_text(text: str, tokens: Sequence[str], stops: Sequence[str], limit: int) -> EchoAnswer:
    """Return the tokens before the first stop string of the text, at most `limit`.

    A stop string may begin inside a token. `tokens` may be a prefix of the text's tokens longer than `limit`.
    """
    ends = [end for end in map(text.find, stops) if end >= 0]
    kept = _truncate(tokens[: limit + 1], min(ends, default=len(text)))
    if len(kept) > limit:
        return EchoAnswer(kept[:limit], "length")
    return EchoAnswer(kept, "stop")


def _truncate(tokens: Sequence[str], end: int) -> list[str]:
    """Return the tokens of the first `end` characters."""
    kept = []
    for token in tokens:
        if end <= 0:
            break
        kept.append(token[:end])
        end -= len(token)
    return kept


def text_of(message: JSONObject) -> str:
    """Return the text of a message. Parts that are not text become `[image]`, `[audio]` or `[file]`."""
    content = message.get("content")
    if not isinstance(content, list):
        return content or ""
    return "".join(
        part.get("text") or part.get("refusal") or PART_PLACEHOLDERS.get(str(part.get("type")), "") for part in content
    )


def prompt_texts(messages: Sequence[JSONObject]) -> list[str]:
    """Return the texts of all messages and the arguments of their tool calls."""
    texts = [text_of(message) for message in messages]
    for message in messages:
        texts += [(call.get("function") or {}).get("arguments") or "" for call in message.get("tool_calls") or ()]
    return texts


def token_logprobs(token: str, top: int) -> TokenLogprob:
    """Return a log probability of 50 to 82 %, the same for equal tokens, and `top` tokens beginning with the token."""
    logprob = -(200 + crc32(token.encode("utf-8", "replace")) % 500) / 1000
    others = [other for other in ALTERNATIVE_TOKENS if other != token]
    most_likely = [(token, logprob), *((other, -2.5 - rank) for rank, other in enumerate(others))]
    return TokenLogprob(token, logprob, tuple(most_likely[:top]))


def _echoed_text(messages: Sequence[JSONObject]) -> str:
    """Return the last message if it is a tool's result, else the last user message, else the last message."""
    if messages[-1].get("role") in {"tool", "function"}:
        return text_of(messages[-1])
    user_messages = [message for message in messages if message.get("role") == "user"]
    return text_of(user_messages[-1] if user_messages else messages[-1])


def _response_text(request: ChatRequest) -> str:
    """Return the echoed text in the requested `response_format`."""
    text = _echoed_text(request.messages)
    format_ = request.parameters.get("response_format", {"type": "text"})
    type_ = format_["type"]
    if type_ == "text":
        return text
    if type_ not in ("json_object", "json_schema"):
        message = f"Invalid value: '{type_}'. Supported values are: 'text', 'json_object' and 'json_schema'."
        raise InvalidRequestError(message, param="response_format.type", code="invalid_value")
    schema = format_["json_schema"].get("schema") if type_ == "json_schema" else None
    if schema is None:
        return to_json({"echo": text})
    return to_json(_example(schema, text, "response_format", request.model))


def _example(schema: Any, text: str, param: str, model: str) -> Any:
    try:
        return generate_example(schema, text)
    except NoExampleError as error:
        raise UnsupportedParameterError(param, model, f"no example was found for its schema: {error}.") from error


def to_json(value: Any) -> str:
    """Return JSON as OpenAI's models write it, without spaces and without ASCII escapes."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _generate_call(request: ChatRequest) -> ToolCall | None:
    """Return the tool call that answers the request, or None for an answer in text."""
    text = _echoed_text(request.messages)
    function = _choose_function(request, text)
    if function is None:
        return None
    arguments = to_json(_example(function.get("parameters") or {"type": "object"}, text, "tools", request.model))
    return ToolCall(_call_id(len(request.messages), function["name"], arguments), function["name"], arguments)


def _choose_function(request: ChatRequest, text: str) -> JSONObject | None:
    functions = _functions(request)
    choice: Any = request.parameters.get("tool_choice", "auto")
    if isinstance(choice, Mapping):
        chosen = choice.get("function")
        if isinstance(chosen, Mapping):
            return _find_function(chosen.get("name"), functions)
        choice, functions = _apply_allowed_tools(choice.get("allowed_tools"), functions)
    if choice not in ("none", "auto", "required"):
        raise InvalidRequestError(
            "Invalid 'tool_choice': it must be 'none', 'auto' or 'required'.", param="tool_choice"
        )
    if choice == "auto":
        # The arguments contain the user's words, and agents execute calls of a tool such as `shell`.
        is_asked = request.messages[-1].get("role") == "user"
        functions = [function for function in functions if is_asked and _is_named(function["name"], text)]
    return _closest(functions, text) if functions and choice != "none" else None


def _is_named(name: str, text: str) -> bool:
    """Return True if a function's name occurs in the text as a word of its own."""
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text[:MAX_COMPARED_CHARS]) is not None


def _functions(request: ChatRequest) -> list[JSONObject]:
    tools = request.parameters.get("tools", ())
    for index, tool in enumerate(tools):
        if tool["type"] != "function":
            reason = "the echo model only calls functions."
            raise UnsupportedParameterError(f"tools[{index}].type", request.model, reason)
    return [tool["function"] for tool in tools]


def _find_function(name: Any, functions: Sequence[JSONObject]) -> JSONObject:
    for function in functions:
        if function["name"] == name:
            return function
    raise InvalidRequestError(f"'tool_choice' names '{name}', which is not one of the 'tools'.", param="tool_choice")


def _apply_allowed_tools(allowed: Any, functions: Sequence[JSONObject]) -> tuple[Any, list[JSONObject]]:
    """Return the mode of `allowed_tools` and the functions that it allows."""
    tools = allowed.get("tools") if isinstance(allowed, Mapping) else None
    if not isinstance(tools, list):
        raise InvalidRequestError("Invalid 'tool_choice': it names no function.", param="tool_choice")
    allowed_functions = [tool.get("function") for tool in tools if isinstance(tool, Mapping)]
    names = [function.get("name") for function in allowed_functions if isinstance(function, Mapping)]
    return allowed.get("mode", "auto"), [function for function in functions if function["name"] in names]


def _closest(functions: Sequence[JSONObject], text: str) -> JSONObject:
    """Return the function that shares the most words with the text, weighted by length, or the first if none does."""
    text_words = _words(text[:MAX_COMPARED_CHARS])

    def overlap(function: JSONObject) -> int:
        description = f"{function['name']} {function.get('description') or ''}"
        return sum(map(len, text_words & _words(description[:MAX_COMPARED_CHARS])))

    return max(functions, key=overlap)


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}


def _call_id(turn: int, name: str, arguments: str) -> str:
    """Return an id like OpenAI's, the same for equal calls of the same turn."""
    return "call_" + hashlib.sha256(f"{turn} {name} {arguments}".encode("utf-8", "replace")).hexdigest()[:24]
