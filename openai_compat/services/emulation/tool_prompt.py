"""Conversations with tools as plain conversations, for models whose API has no tools."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from openai_compat.backends.parsing.openai_chat import read_content
from openai_compat.core.large_json import parse_json
from openai_compat.core.types import JSON, JSONObject

from .call_parser import BEGIN, END
from .tool_rules import INPUT, EmulatedTool, ToolRules

SYSTEM_ROLES: Final = frozenset({"system", "developer"})
RESULT_ROLES: Final = frozenset({"tool", "function"})
_CALL_KEYS: Final = frozenset({"tool_calls", "function_call"})
_INTRODUCTION: Final = "You can call tools. Each line describes a tool and the JSON schema of its arguments:"
_FORMAT: Final = f"""To call a tool, write its name and its arguments as JSON between these marks:
{BEGIN}
{{"name": "NAME", "arguments": {{}}}}
{END}
Arguments must match the schema. Write nothing after a call. The results are in the next message. Never invent them."""
_MANY: Final = "To call several tools at once, write one such block for each call."
_ONE: Final = "Call at most one tool at a time."
_OPTIONAL: Final = "If no tool is needed, answer without one."
_REQUIRED: Final = "You must call a tool now, and write nothing else."


def describe_tools(rules: ToolRules) -> str:
    """Return the instructions for calling the tools."""
    lines = [_INTRODUCTION, *map(_describe, rules.tools.values()), "", _FORMAT]
    lines += [_MANY if rules.allows_many else _ONE, _REQUIRED if rules.is_required else _OPTIONAL]
    return "\n".join(lines)


def _describe(tool: EmulatedTool) -> str:
    described = {"name": tool.name, "description": tool.description, "parameters": tool.schema}
    return json.dumps({key: value for key, value in described.items() if value}, ensure_ascii=False)


def add_instructions(messages: Sequence[JSONObject], instructions: str) -> list[JSONObject]:
    """Return the conversation with instructions at the end of its first message if that is the system's.

    Otherwise they become a system message of their own.
    """
    first = messages[0] if messages else {}
    if first.get("role") not in SYSTEM_ROLES:
        return [{"role": "system", "content": instructions}, *messages]
    text = read_content(first.get("content"))[0]
    return [{**first, "content": f"{text}\n\n{instructions}" if text else instructions}, *messages[1:]]


def to_plain_messages(messages: Sequence[JSONObject]) -> list[JSONObject]:
    """Return the conversation with calls as the assistant's text, and with results as the user's."""
    names: dict[str, str] = {}
    results: list[str] = []
    plain: list[JSONObject] = []
    for message in messages:
        if message.get("role") in RESULT_ROLES:
            results.append(_to_result(message, names))
            continue
        plain += _flush(results)
        names |= {str(call.get("id")): _body_of(call)["name"] for call in _calls_of(message)}
        plain.append(_with_written_calls(message))
    return [*plain, *_flush(results)]


def has_tool_messages(messages: Sequence[JSONObject]) -> bool:
    """Return True if a conversation has calls of tools or their results."""
    return any(
        message.get("role") in RESULT_ROLES or any(message.get(key) for key in _CALL_KEYS) for message in messages
    )


def write_tools(messages: Sequence[JSONObject], rules: ToolRules | None) -> list[JSONObject]:
    """Return the conversation with calls and results as text, and with the instructions if tools may be called."""
    plain = to_plain_messages(messages)
    return plain if rules is None else add_instructions(plain, describe_tools(rules))


def _flush(results: list[str]) -> Iterator[JSON]:
    """Yield the collected results as one message of the user, since many APIs expect the roles to alternate."""
    if results:
        yield {"role": "user", "content": "\n".join(results)}
        results.clear()


def _to_result(message: JSONObject, names: Mapping[str, str]) -> str:
    name = message.get("name") or names.get(str(message.get("tool_call_id")), "")
    label = f" name={json.dumps(name, ensure_ascii=False)}" if name else ""
    return f"<tool_response{label}>\n{read_content(message.get('content'))[0]}\n</tool_response>"


def _with_written_calls(message: JSONObject) -> JSONObject:
    calls = [f"{BEGIN}\n{json.dumps(_body_of(call), ensure_ascii=False)}\n{END}" for call in _calls_of(message)]
    if not calls:
        return message
    kept = {key: value for key, value in message.items() if key not in _CALL_KEYS}
    text = read_content(message.get("content"))[0]
    return {**kept, "content": "\n".join([text, *calls] if text else calls)}


def _calls_of(message: JSONObject) -> list[JSONObject]:
    legacy = message.get("function_call")
    return [*(message.get("tool_calls") or ()), *([{"function": legacy}] if legacy else ())]


def _body_of(call: JSONObject) -> JSON:
    """Return the name and the arguments of a call, as the instructions ask the model to write them."""
    custom = call.get("custom")
    if isinstance(custom, Mapping):
        return {"name": str(custom.get("name")), "arguments": {INPUT: custom.get("input")}}
    function = call.get("function") or {}
    return {"name": str(function.get("name")), "arguments": _parse_arguments(function.get("arguments"))}


def _parse_arguments(text: Any) -> Any:
    """Return the arguments as an object, or the text itself if it is not JSON."""
    try:
        return parse_json(text or "{}")
    except (ValueError, RecursionError):
        return text
