"""Tools of one call as the emulation uses them, with the rules for calling them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from openai_compat.core.errors import InvalidAnswerError, InvalidRequestError
from openai_compat.core.shortening import shorten
from openai_compat.core.types import JSONObject, ToolCallDelta
from openai_compat.services.openai_objects import new_id

from .json_repair import repair_value, to_json_text
from .schema_check import Violation, check_value

MAX_REASON_CHARS: Final = 500
"""Length of the reason in an error, which repeats names that the model wrote."""
INPUT: Final = "input"
"""The only argument of a custom tool, whose input is any text."""
_CUSTOM_SCHEMA: Final = {"type": "object", "properties": {INPUT: {"type": "string"}}, "required": [INPUT]}


@dataclass(frozen=True, slots=True)
class EmulatedTool:
    """A tool that the model may call. `schema` is the JSON schema of its arguments."""

    name: str
    description: str
    schema: JSONObject
    type: Literal["function", "custom"] = "function"

    def to_call(self, index: int, arguments: Any) -> ToolCallDelta:
        """Return a call with these arguments, repaired if possible.

        Raises:
            InvalidAnswerError: the schema does not allow the arguments.
        """
        schema = {"type": "object", **self.schema}
        try:
            arguments = repair_value({} if arguments is None else arguments, schema)
            check_value(arguments, schema)
            text = arguments[INPUT] if self.type == "custom" else to_json_text(arguments)
        except (Violation, ValueError) as error:
            reason = shorten(str(error), MAX_REASON_CHARS)
            message = f"The model called the tool '{self.name}' with invalid arguments: {reason}."
            raise InvalidAnswerError(message) from error
        return ToolCallDelta(index, text, new_id("call_"), self.name, self.type)


@dataclass(frozen=True, slots=True)
class ToolRules:
    """The tools that the model may call by their names, whether it has to, and whether it may call several."""

    tools: Mapping[str, EmulatedTool]
    is_required: bool = False
    allows_many: bool = True


def to_rules(tools: Sequence[JSONObject], choice: Any, *, allows_many: bool) -> ToolRules | None:
    """Return the rules for the tools of a request, or None if `tool_choice` excludes all of them.

    Raises:
        InvalidRequestError: `tool_choice` names a tool that the request does not have.
    """
    known = {tool.name: tool for tool in map(_to_tool, tools)}
    allowed = allowed_names(choice)
    if choice == "none" or not known:
        return None
    unknown = next((name for name in allowed or () if name not in known), None)
    if unknown is not None:
        raise InvalidRequestError(f"Invalid 'tool_choice': there is no tool '{unknown}'.", param="tool_choice")
    usable = known if allowed is None else {name: known[name] for name in allowed}
    return ToolRules(usable, is_required=requires_call(choice), allows_many=allows_many)


def requires_call(choice: Any) -> bool:
    """Return True if a `tool_choice` demands a call of any tool or of a named one."""
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        return _members(choice).get("mode") == "required"
    return choice == "required" or isinstance(choice, Mapping)


def allowed_names(choice: Any) -> list[str] | None:
    """Return the names of the tools that a `tool_choice` allows, or None if it allows all."""
    if not isinstance(choice, Mapping):
        return None
    if choice.get("type") == "allowed_tools":
        tools = _members(choice).get("tools")
        return [_name_of(tool) for tool in tools if isinstance(tool, Mapping)] if isinstance(tools, list) else None
    return [_name_of(choice)]


def _members(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the object with `mode` and `tools`, which OpenAI's chat API nests."""
    nested = choice.get("allowed_tools")
    return nested if isinstance(nested, Mapping) else choice


def _name_of(tool: Mapping[str, Any]) -> str:
    nested = tool.get("function") or tool.get("custom")
    return str(nested.get("name") if isinstance(nested, Mapping) else tool.get("name"))


def _to_tool(tool: JSONObject) -> EmulatedTool:
    if tool.get("type") == "custom":
        custom = tool.get("custom") or {}
        return EmulatedTool(_name_of(tool), str(custom.get("description") or ""), _CUSTOM_SCHEMA, "custom")
    function = tool.get("function") or {}
    return EmulatedTool(_name_of(tool), function.get("description") or "", function.get("parameters") or {})
