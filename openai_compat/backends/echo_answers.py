"""What the echo model answers: the user's own words, a made-up tool call, or a made-up structured answer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from zlib import crc32

from ..domain import ChatRequest, FinishReason, JSONObject, TokenLogprob
from ..errors import PayloadError, UnsupportedParameterError
from ..tokens import split_tokens
from .json_example import NoExampleError, make_example
from .parameter_checks import stops_of

PART_MARKS: Final[Mapping[str, str]] = {"image_url": "[image]", "input_audio": "[audio]", "file": "[file]"}
"""What stands in the answer for a part that is not text."""

UNLIKELY_TOKENS: Final = (
    *(" the", " of", " and", " to", " in", " is", " that", " it", " for", " on", " with"),
    *(" as", " at", " by", " from", " or", " an", " be", " this", " not", " are"),
)
"""The tokens that `top_logprobs` tells of beside the one that was written; one more than anyone may ask for."""

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool; `arguments` is JSON. `finish_reason` tells a tool from a function of the old kind."""

    id: str
    name: str
    arguments: str
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice: its tokens, of the text or of the call's arguments, and why it ends."""

    tokens: Sequence[str]
    finish_reason: FinishReason
    call: ToolCall | None = None


def answer_chat(request: ChatRequest) -> Answer:
    """The one answer to a conversation.

    Raises:
        PayloadError: `tool_choice` names no tool of the request.
        UnsupportedParameterError: a tool or a schema for which nothing can be made up.
    """
    parameters = request.parameters
    limit = parameters.get("max_completion_tokens", parameters.get("max_tokens"))
    call = _call_of(request)
    if call is not None:
        tokens = split_tokens(call.arguments)
        is_cut = limit is not None and len(tokens) > limit
        return Answer(tokens[:limit], "length" if is_cut else call.finish_reason, call)
    return answer_text(_formatted(request), stops_of(parameters), limit)


def answer_text(text: str, stops: Sequence[str], limit: int | None) -> Answer:
    """The text up to its first stop string, but not more than `limit` tokens of it."""
    end = min((text.find(stop) for stop in stops if stop in text), default=len(text))
    tokens = split_tokens(text[:end])
    if limit is not None and len(tokens) > limit:
        return Answer(tokens[:limit], "length")
    return Answer(tokens, "stop")


def text_of(message: JSONObject) -> str:
    """A message's text: its parts joined, with `[image]` and the like for those that are not text."""
    content = message.get("content")
    if not isinstance(content, list):
        return content or ""
    return "".join(
        part.get("text") or part.get("refusal") or PART_MARKS.get(str(part.get("type")), "") for part in content
    )


def count_prompt_tokens(messages: Sequence[JSONObject]) -> int:
    """The tokens of all messages, the calls in them included."""
    texts = [text_of(message) for message in messages]
    for message in messages:
        texts += [call.get("function", {}).get("arguments", "") for call in message.get("tool_calls") or ()]
    return sum(len(split_tokens(text)) for text in texts)


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
    format_ = request.parameters.get("response_format") or {}
    match format_.get("type"):
        case "json_object":
            return to_json({"echo": text})
        case "json_schema":
            schema = (format_.get("json_schema") or {}).get("schema")
            if schema is None:
                return to_json({"echo": text})
            return to_json(_example(schema, text, "response_format", request.model))
        case _:
            return text


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
    parameters = request.parameters
    is_legacy = "functions" in parameters
    param = "functions" if is_legacy else "tools"
    functions = list(parameters["functions"]) if is_legacy else _functions(request)
    choice: Any = parameters.get("function_call" if is_legacy else "tool_choice", "auto")
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        choice, functions = _allowed(choice, functions)
    if not functions or choice == "none":
        return None
    text = _answered_text(request.messages)
    if isinstance(choice, Mapping):
        function = _named(choice, functions)
    elif choice == "required" or request.messages[-1].get("role") == "user":
        function = _closest(functions, text)
    else:
        return None
    arguments = to_json(_example(function.get("parameters") or {"type": "object"}, text, param, request.model))
    id_ = _call_id(len(request.messages), function["name"], arguments)
    return ToolCall(id_, function["name"], arguments, "function_call" if is_legacy else "tool_calls")


def _functions(request: ChatRequest) -> list[JSONObject]:
    tools = request.parameters.get("tools", ())
    for index, tool in enumerate(tools):
        if tool.get("type") != "function":
            reason = "the echo model calls functions only."
            raise UnsupportedParameterError(f"tools[{index}].type", request.model, reason)
    return [tool["function"] for tool in tools]


def _allowed(choice: JSONObject, functions: Sequence[JSONObject]) -> tuple[str, list[JSONObject]]:
    """`allowed_tools` narrows the tools, and says whether one of them must be called."""
    allowed = choice.get("allowed_tools", {})
    names = {tool.get("function", {}).get("name") for tool in allowed.get("tools", ())}
    return allowed.get("mode", "auto"), [function for function in functions if function["name"] in names]


def _named(choice: JSONObject, functions: Sequence[JSONObject]) -> JSONObject:
    is_tool = "function" in choice
    name = choice["function"].get("name") if is_tool else choice.get("name")
    for function in functions:
        if function["name"] == name:
            return function
    params = ("tool_choice", "tools") if is_tool else ("function_call", "functions")
    raise PayloadError(f"'{params[0]}' names '{name}', which is not one of '{params[1]}'.", param=params[0])


def _closest(functions: Sequence[JSONObject], text: str) -> JSONObject:
    """The function whose name and description share most words with the text; the first among equals."""
    said = _words(text)
    return max(functions, key=lambda function: len(said & _words(f"{function['name']} {function.get('description')}")))


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}


def _call_id(turn: int, name: str, arguments: str) -> str:
    """Like OpenAI's ids, but the same for the same call in the same turn."""
    return "call_" + hashlib.sha256(f"{turn} {name} {arguments}".encode("utf-8", "replace")).hexdigest()[:24]
