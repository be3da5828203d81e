"""What the echo model answers: the user's own words, a made-up tool call, or a made-up structured answer."""

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
from .schema_faker import NoExampleError, make_example

PART_MARKS: Final[Mapping[str, str]] = {"image_url": "[image]", "input_audio": "[audio]", "file": "[file]"}
"""What stands in the answer for a part that is not text."""

UNLIKELY_TOKENS: Final = (
    *(" the", " of", " and", " to", " in", " is", " that", " it", " for", " on", " with"),
    *(" as", " at", " by", " from", " or", " an", " be", " this", " not", " are"),
)
"""The tokens that `top_logprobs` tells of beside the one that was written; one more than anyone may ask for."""

LOOKED_AT: Final = 4_000
"""Characters of the text, and of each tool's description, that choose the tool."""

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool; `arguments` is JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class EchoAnswer:
    """One choice: its tokens, of the text or of the call's arguments, and why it ends."""

    tokens: Sequence[str]
    finish_reason: FinishReason
    call: ToolCall | None = None


def answer_chat(request: ChatRequest, limit: int, tokenizer: CooperativeTokenizer) -> EchoAnswer:
    """The one answer to a conversation, of at most `limit` tokens.

    Raises:
        PayloadError: `tool_choice` names no tool of the request.
        UnsupportedParameterError: a tool or a schema for which nothing can be made up.
    """
    call = _call_of(request)
    if call is not None:
        tokens = tokenizer.first(call.arguments, limit + 1)
        return EchoAnswer(tokens[:limit], "length" if len(tokens) > limit else "tool_calls", call)
    text = _formatted(request)
    return answer_with(text, tokenizer.first(text, limit + 1), stops_of(request.parameters), limit)


def answer_with(text: str, tokens: Sequence[str], stops: Sequence[str], limit: int) -> EchoAnswer:
    """The tokens up to the text's first stop string, which may begin within one, but not more than `limit` of them.

    `tokens` may be the text's first ones only, as long as they are more than `limit`.
    """
    ends = [end for end in map(text.find, stops) if end >= 0]
    kept = _up_to(tokens[: limit + 1], min(ends, default=len(text)))
    if len(kept) > limit:
        return EchoAnswer(kept[:limit], "length")
    return EchoAnswer(kept, "stop")


def _up_to(tokens: Sequence[str], end: int) -> list[str]:
    """The first `end` characters."""
    kept = []
    for token in tokens:
        if end <= 0:
            break
        kept.append(token[:end])
        end -= len(token)
    return kept


def text_of(message: JSONObject) -> str:
    """A message's text: its parts joined, with `[image]` and the like for those that are not text."""
    content = message.get("content")
    if not isinstance(content, list):
        return content or ""
    return "".join(
        part.get("text") or part.get("refusal") or PART_MARKS.get(str(part.get("type")), "") for part in content
    )


def prompt_texts(messages: Sequence[JSONObject]) -> list[str]:
    """The texts of all messages, and the arguments of the calls in them."""
    texts = [text_of(message) for message in messages]
    for message in messages:
        texts += [(call.get("function") or {}).get("arguments") or "" for call in message.get("tool_calls") or ()]
    return texts


def token_logprobs(token: str, top: int) -> TokenLogprob:
    """A made-up log probability of 50 to 80 %, the same for equal tokens, and `top` tokens with the token first."""
    logprob = -(200 + crc32(token.encode("utf-8", "replace")) % 500) / 1000
    others = [other for other in UNLIKELY_TOKENS if other != token]
    likeliest = [(token, logprob), *((other, -2.5 - rank) for rank, other in enumerate(others))]
    return TokenLogprob(token, logprob, tuple(likeliest[:top]))


def _answered_text(messages: Sequence[JSONObject]) -> str:
    """The result of a tool when it comes last, else what the user said last, else the last message."""
    if messages[-1].get("role") in {"tool", "function"}:
        return text_of(messages[-1])
    said = [message for message in messages if message.get("role") == "user"]
    return text_of(said[-1] if said else messages[-1])


def _formatted(request: ChatRequest) -> str:
    text = _answered_text(request.messages)
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
        return make_example(schema, text)
    except NoExampleError as error:
        raise UnsupportedParameterError(param, model, f"nothing could be made up for its schema: {error}.") from error


def to_json(value: Any) -> str:
    """JSON as OpenAI's models write it: without spaces, letters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _call_of(request: ChatRequest) -> ToolCall | None:
    """The call that the answer consists of, None for an answer in text."""
    text = _answered_text(request.messages)
    function = _called_function(request, text)
    if function is None:
        return None
    arguments = to_json(_example(function.get("parameters") or {"type": "object"}, text, "tools", request.model))
    return ToolCall(_call_id(len(request.messages), function["name"], arguments), function["name"], arguments)


def _called_function(request: ChatRequest, text: str) -> JSONObject | None:
    functions = _functions(request)
    choice: Any = request.parameters.get("tool_choice", "auto")
    if isinstance(choice, Mapping):
        named = choice.get("function")
        if isinstance(named, Mapping):
            return _named(named.get("name"), functions)
        choice, functions = _allowed(choice.get("allowed_tools"), functions)
    if choice not in ("none", "auto", "required"):
        raise InvalidRequestError(
            "Invalid 'tool_choice': it is none of 'none', 'auto', 'required'.", param="tool_choice"
        )
    is_asked = choice == "required" or (choice == "auto" and request.messages[-1].get("role") == "user")
    return _closest(functions, text) if functions and is_asked else None


def _functions(request: ChatRequest) -> list[JSONObject]:
    tools = request.parameters.get("tools", ())
    for index, tool in enumerate(tools):
        if tool["type"] != "function":
            reason = "the echo model calls functions only."
            raise UnsupportedParameterError(f"tools[{index}].type", request.model, reason)
    return [tool["function"] for tool in tools]


def _named(name: Any, functions: Sequence[JSONObject]) -> JSONObject:
    for function in functions:
        if function["name"] == name:
            return function
    raise InvalidRequestError(f"'tool_choice' names '{name}', which is not one of the 'tools'.", param="tool_choice")


def _allowed(allowed: Any, functions: Sequence[JSONObject]) -> tuple[Any, list[JSONObject]]:
    """`allowed_tools` narrows the tools, and its mode says whether one of them must be called."""
    tools = allowed.get("tools") if isinstance(allowed, Mapping) else None
    if not isinstance(tools, list):
        raise InvalidRequestError("Invalid 'tool_choice': it names no function.", param="tool_choice")
    named = [tool.get("function") for tool in tools if isinstance(tool, Mapping)]
    names = [function.get("name") for function in named if isinstance(function, Mapping)]
    return allowed.get("mode", "auto"), [function for function in functions if function["name"] in names]


def _closest(functions: Sequence[JSONObject], text: str) -> JSONObject:
    """The function whose name and description share most with the text, long words counting more; else the first."""
    said = _words(text[:LOOKED_AT])

    def shared(function: JSONObject) -> int:
        return sum(map(len, said & _words(f"{function['name']} {function.get('description') or ''}"[:LOOKED_AT])))

    return max(functions, key=shared)


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}


def _call_id(turn: int, name: str, arguments: str) -> str:
    """Like OpenAI's ids, but the same for the same call in the same turn."""
    return "call_" + hashlib.sha256(f"{turn} {name} {arguments}".encode("utf-8", "replace")).hexdigest()[:24]
