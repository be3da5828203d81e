"""Tools of a chat as tools of Anthropic's API."""

from __future__ import annotations

from typing import Any, Final

from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.types import JSON, JSONObject

from .content import CACHE_CONTROL

_CHOICES: Final = {"auto": "auto", "required": "any", "none": "none"}
FORCED: Final = frozenset({"any", "tool"})
"""Types of choices that force a call, with which Claude cannot think."""


def to_tools(parameters: JSONObject) -> list[JSON]:
    """Return the tools. With a choice of allowed tools, these are the only ones.

    Raises:
        InvalidRequestError: A tool is neither a function nor one of Anthropic's own.
    """
    tools = [_to_tool(tool, f"tools[{index}]") for index, tool in enumerate(parameters.get("tools") or ())]
    allowed = _allowed_in(parameters.get("tool_choice"))
    return tools if allowed is None else [tool for tool in tools if tool["name"] in allowed]


def _to_tool(tool: JSONObject, path: str) -> JSON:
    function = tool.get("function")
    if not isinstance(function, dict):
        if tool.get("type") == "custom":
            message = f"Invalid value: 'custom'. This model takes tools of type 'function' in '{path}.type'."
            raise InvalidRequestError(message, param=f"{path}.type", code="invalid_value")
        return dict(tool)
    schema = {"type": "object", **(function.get("parameters") or {"properties": {}})}
    converted: JSON = {"name": function["name"], "input_schema": schema}
    for key in ("description", "strict"):
        if function.get(key):
            converted[key] = function[key]
    if mark := tool.get(CACHE_CONTROL) or function.get(CACHE_CONTROL):
        converted[CACHE_CONTROL] = mark
    return converted


def _allowed_in(choice: Any) -> frozenset[str] | None:
    """Return the names of the tools that a choice allows, or None for all."""
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return None
    tools = (choice.get("allowed_tools") or {}).get("tools") or ()
    return frozenset((tool.get("function") or tool).get("name") or "" for tool in tools)


def to_tool_choice(parameters: JSONObject) -> JSON | None:
    """Return the choice among the tools, or None for that of the model.

    Raises:
        InvalidRequestError: The choice is unknown.
    """
    choice = _to_choice(parameters.get("tool_choice"))
    if parameters.get("parallel_tool_calls") is False and choice.get("type") != "none":
        return {"type": "auto", **choice, "disable_parallel_tool_use": True}
    return choice or None


def _to_choice(choice: Any) -> JSON:
    if choice is None:
        return {}
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        choice = (choice.get("allowed_tools") or {}).get("mode") or "auto"
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        return {"type": "tool", "name": choice["function"].get("name")}
    if not isinstance(choice, str) or choice not in _CHOICES:
        message = f"Invalid value: '{choice}'. Supported values are: 'auto', 'required', 'none' and a function."
        raise InvalidRequestError(message, param="tool_choice", code="invalid_value")
    return {"type": _CHOICES[choice]}
