"""The older spelling of tools, `functions` and `function_call`: backends see tools alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openai_compat.core.errors import InvalidRequestError

JSON = dict[str, Any]


def to_tools(parameters: Mapping[str, Any]) -> JSON:
    """`functions` as `tools`, `function_call` as `tool_choice`; one call at a time, as the older spelling can tell.

    Raises:
        PayloadError: both spellings at once.
    """
    if "tools" in parameters:
        raise InvalidRequestError(
            "'functions' and 'tools' cannot be used together; 'tools' is the newer one.", param="functions"
        )
    modern = {name: value for name, value in parameters.items() if name not in {"functions", "function_call"}}
    modern["tools"] = [{"type": "function", "function": function} for function in parameters["functions"]]
    choice = parameters.get("function_call")
    if isinstance(choice, Mapping):
        modern["tool_choice"] = {"type": "function", "function": choice}
    elif choice is not None:
        modern["tool_choice"] = choice
    modern["parallel_tool_calls"] = False
    return modern


def to_legacy_message(message: JSON) -> JSON:
    """A message whose `tool_calls` become its one `function_call`."""
    if "tool_calls" not in message:
        return message
    legacy = {name: value for name, value in message.items() if name != "tool_calls"}
    legacy["function_call"] = message["tool_calls"][0]["function"]
    return legacy


def to_legacy_chunk(delta: JSON) -> JSON:
    """The same for the delta of a chunk."""
    if "tool_calls" not in delta:
        return delta
    return {"function_call": delta["tool_calls"][0]["function"]}
