"""Tools of the Responses API as chat tools, and the way back from a chat tool's name to the client's tool."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.large_json import parse_json
from openai_compat.core.profiles import DROPPED
from openai_compat.core.types import JSON
from openai_compat.services.request_fields import invalid_value, object_at, text_at
from openai_compat.services.tool_names import to_chat_name

INPUT: Final = "input"
"""The only parameter of the function that stands in for a custom tool."""
NO_ARGUMENTS: Final = "{}"
"""Arguments of a call without any. Some models write an empty text, which clients cannot parse."""
DROPPED_TOOLS: Final = ("web_search", "tool_search")
"""Beginnings of the types of hosted tools that a model can do without. Some clients send them with every request."""
HOSTED_TOOLS: Final = (
    "file_search", "code_interpreter", "computer", "image_generation", "mcp", "local_shell", "shell", "apply_patch",
    "programmatic_tool_calling",
)  # fmt: skip
"""Beginnings of the types of tools that would have to run here, or that chat models do not know."""
MODES: Final = ("none", "auto", "required")


@dataclass(frozen=True, slots=True)
class ClientTool:
    """A tool as the client named it."""

    kind: Literal["function", "custom"]
    name: str
    namespace: str | None = None


@dataclass(slots=True)
class ToolMap:
    """The tools of one call by the names that the chat model knows."""

    by_name: dict[str, ClientTool] = field(default_factory=dict)
    definition_of: dict[str, JSON] = field(default_factory=dict)
    """The chat tools that the model gets."""
    dropped: set[str] = field(default_factory=set)
    """Types of the hosted tools that the model does not get."""

    @property
    def definitions(self) -> list[JSON]:
        """The chat tools."""
        return list(self.definition_of.values())

    def find(self, chat_name: str) -> ClientTool:
        """Return the client's tool. A name that the model made up is a function's."""
        return self.by_name.get(chat_name) or ClientTool("function", chat_name)

    def adaptations(self) -> dict[str, str]:
        """Return what was left out, as the header `x-openai-compat-adapted` lists it."""
        return {f"tools.{kind}": DROPPED for kind in sorted(self.dropped)}

    def add(self, tool: ClientTool, definition: JSON) -> None:
        """Add a tool, or replace the one with its name. The definition gets the name for the chat model."""
        name = to_chat_name(tool.namespace, tool.name)
        definition["function"]["name"] = name
        self.by_name[name] = tool
        self.definition_of[name] = definition

    def restrict(self, tools: Sequence[ClientTool]) -> None:
        """Keep only the tools that `tool_choice` allows."""
        allowed = {to_chat_name(tool.namespace, tool.name) for tool in tools}
        self.definition_of = {name: tool for name, tool in self.definition_of.items() if name in allowed}


def to_tool_map(tools: Sequence[Any], path: str = "tools") -> ToolMap:
    """Return the chat tools of a request's `tools`.

    Raises:
        InvalidRequestError: a tool is malformed, or one that this server would have to run.
    """
    tool_map = ToolMap()
    for index, tool in enumerate(tools):
        _add_tool(tool_map, object_at(tool, f"{path}[{index}]"), f"{path}[{index}]", None)
    return tool_map


def _add_tool(tool_map: ToolMap, tool: Mapping[str, Any], path: str, namespace: str | None) -> None:
    kind = text_at(tool, "type", path)
    if kind == "function":
        tool_map.add(ClientTool("function", text_at(tool, "name", path), namespace), _to_function(tool))
    elif kind == "custom":
        tool_map.add(ClientTool("custom", text_at(tool, "name", path), namespace), _to_text_function(tool))
    elif kind == "namespace" and namespace is None:
        name, members = text_at(tool, "name", path), tool.get("tools")
        for index, member in enumerate(members if isinstance(members, list) else ()):
            _add_tool(tool_map, object_at(member, f"{path}.tools[{index}]"), f"{path}.tools[{index}]", name)
    elif kind.startswith(DROPPED_TOOLS):
        tool_map.dropped.add(next(dropped for dropped in DROPPED_TOOLS if kind.startswith(dropped)))
    elif kind.startswith(HOSTED_TOOLS):
        raise unavailable_tool(kind, f"{path}.type")
    else:
        raise invalid_value(kind, f"{path}.type", ("function", "custom", "namespace", *DROPPED_TOOLS))


def unavailable_tool(kind: str, param: str) -> InvalidRequestError:
    """Return the error for a hosted tool, which this server does not run."""
    return InvalidRequestError(
        f"The tool type '{kind[:40]}' is not available with this model, because this server runs no hosted tools. "
        "Use tools of type 'function' or 'custom'.",
        param=param,
        code="unsupported_parameter",
    )


def _to_function(tool: Mapping[str, Any]) -> JSON:
    kept = {key: tool[key] for key in ("description", "parameters", "strict") if tool.get(key) is not None}
    return {"type": "function", "function": {"name": "", **kept}}


def _to_text_function(tool: Mapping[str, Any]) -> JSON:
    """Return a function with one text parameter. A grammar becomes part of the description."""
    texts = [tool.get("description"), *_grammar_of(tool.get("format"))]
    described = "\n\n".join(text for text in texts if isinstance(text, str) and text)
    parameters = {
        "type": "object",
        "properties": {INPUT: {"type": "string", "description": "The complete input of the tool, as plain text."}},
        "required": [INPUT],
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": "", "description": described, "parameters": parameters}}


def _grammar_of(format_: Any) -> Iterator[str]:
    """Yield the sentence that describes the grammar of a custom tool, if it has one."""
    if not isinstance(format_, Mapping) or format_.get("type") != "grammar":
        return
    nested = format_.get("grammar")
    grammar = nested if isinstance(nested, Mapping) else format_
    syntax = grammar.get("syntax")
    language = "regular expression" if syntax == "regex" else f"{syntax} grammar"
    yield f"The input must match this {language}:\n{grammar.get('definition')}"


def to_tool_choice(choice: Any, tool_map: ToolMap) -> Any:
    """Return the chat `tool_choice`, or None for the default. `allowed_tools` also restricts the tools.

    Raises:
        InvalidRequestError: it forces a hosted tool, or a tool that the request does not have.
    """
    if choice is None or choice in MODES:
        return _check_mode(choice, tool_map)
    if isinstance(choice, str):
        raise invalid_value(choice, "tool_choice", MODES)
    kind = text_at(choice, "type", "tool_choice")
    if kind == "allowed_tools":
        members = choice.get("tools")
        tool_map.restrict(list(_allowed(members if isinstance(members, list) else ())))
        return _check_mode(choice.get("mode") or "auto", tool_map)
    if kind not in ("function", "custom"):
        raise unavailable_tool(kind, "tool_choice.type")
    name = to_chat_name(choice.get("namespace"), text_at(choice, "name", "tool_choice"))
    if name not in tool_map.by_name:
        raise InvalidRequestError("Tool choice names a tool that is not in 'tools'.", param="tool_choice")
    return {"type": "function", "function": {"name": name}}


def _check_mode(mode: Any, tool_map: ToolMap) -> Any:
    """Return the mode, or None if it asks for nothing because there are no tools."""
    if tool_map.definitions:
        return mode
    if mode == "required":
        raise InvalidRequestError(
            "Tool choice 'required' needs a tool of type 'function' or 'custom'.", param="tool_choice"
        )
    return None


def _allowed(members: Sequence[Any]) -> Iterator[ClientTool]:
    for index, member in enumerate(members):
        path = f"tool_choice.tools[{index}]"
        tool = object_at(member, path)
        if text_at(tool, "type", path) in ("function", "custom"):
            yield ClientTool("function", text_at(tool, "name", path), tool.get("namespace"))


def wrap_input(text: str) -> str:
    """Return the arguments of the function that stands in for a custom tool."""
    return json.dumps({INPUT: text}, ensure_ascii=False)


def unwrap_input(arguments: str) -> str:
    """Return a custom tool's input from a function's arguments. A model that wrote plain text meant it as the input.

    The JSON may have unescaped line breaks, which models write in patches and programs.
    """
    try:
        value = parse_json(arguments, strict=False)
    except (ValueError, RecursionError):
        return arguments
    if value == {}:
        return ""
    found = value.get(INPUT) if isinstance(value, dict) else None
    return found if isinstance(found, str) else arguments
