"""Tools of the Messages API as chat tools, and the way back from a chat tool's name to the client's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from openai_compat.core.profiles import DROPPED
from openai_compat.core.types import JSON
from openai_compat.services.request_fields import invalid_value, object_at, text_at
from openai_compat.services.tool_names import to_chat_name

PLACEHOLDER: Final = "DeferredToolPlaceholder"
"""Tool of Claude Code that stands for those it has not loaded, and that the model is not to call."""
NO_PARAMETERS: Final = {"type": "object", "properties": {}}
CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
"""Anthropic's word for a tool choice -> OpenAI's."""


@dataclass(slots=True)
class ToolMap:
    """The tools of one call, and what was left out of them."""

    definitions: list[JSON] = field(default_factory=list)
    """The chat tools."""
    names: dict[str, str] = field(default_factory=dict)
    """Name for the chat model -> name of the client, where they differ."""
    adaptations: dict[str, str] = field(default_factory=dict)

    def find(self, chat_name: str) -> str:
        """Return the client's name of a tool. A name that the model made up stays as it is."""
        return self.names.get(chat_name, chat_name)

    def add(self, tool: Mapping[str, Any], path: str) -> None:
        """Add a tool that the client runs.

        Raises:
            InvalidRequestError: it is malformed.
        """
        name = text_at(tool, "name", path)
        chat_name = to_chat_name(None, name)
        if chat_name != name:
            self.names[chat_name] = name
        schema = tool.get("input_schema")
        parameters = NO_PARAMETERS if schema is None else object_at(schema, f"{path}.input_schema")
        kept = {key: tool[key] for key in ("description", "strict") if tool.get(key) is not None}
        self.definitions.append({"type": "function", "function": {"name": chat_name, "parameters": parameters, **kept}})


def to_tool_map(tools: Sequence[Any]) -> ToolMap:
    """Return the chat tools of a request's `tools`, without those that Anthropic's servers run.

    Raises:
        InvalidRequestError: a tool is malformed.
    """
    tool_map = ToolMap()
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        kind = object_at(tool, path).get("type") or "custom"
        if kind != "custom":
            tool_map.adaptations[f"tools.{kind}"] = DROPPED
        elif tool.get("name") != PLACEHOLDER:
            tool_map.add(tool, path)
    return tool_map


def to_tool_parameters(choice: Any, tools: ToolMap) -> JSON:
    """Return the parameters `tools`, `tool_choice` and `parallel_tool_calls` of the chat.

    Raises:
        InvalidRequestError: the choice is malformed.
    """
    if not tools.definitions:
        return {}
    found: JSON = {"tools": tools.definitions}
    if choice is None:
        return found
    kind = text_at(choice, "type", "tool_choice")
    if kind == "tool":
        name = to_chat_name(None, text_at(choice, "name", "tool_choice"))
        if any(tool["function"]["name"] == name for tool in tools.definitions):
            found["tool_choice"] = {"type": "function", "function": {"name": name}}
        else:
            tools.adaptations["tool_choice"] = DROPPED
    elif kind in CHOICES:
        found["tool_choice"] = CHOICES[kind]
    else:
        raise invalid_value(kind, "tool_choice.type", (*CHOICES, "tool"))
    if choice.get("disable_parallel_tool_use") is True:
        found["parallel_tool_calls"] = False
    return found
