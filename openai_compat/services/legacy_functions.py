"""Conversion between `functions` with `function_call`, OpenAI's older form, and tools. Backends see only tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.types import JSON


def to_tools(parameters: Mapping[str, Any]) -> JSON:
    """Return the parameters with `functions` as `tools`, `function_call` as `tool_choice`, and one call at a time.

    Raises:
        InvalidRequestError: both forms are used.
    """
    if "tools" in parameters:
        raise InvalidRequestError(
            "'functions' and 'tools' cannot be used together. 'tools' is the newer one.", param="functions"
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
    """Return a message with its first tool call as `function_call`."""
    if "tool_calls" not in message:
        return message
    legacy = {name: value for name, value in message.items() if name != "tool_calls"}
    legacy["function_call"] = _to_function(message["tool_calls"][0])
    return legacy


def to_legacy_chunk(delta: JSON) -> JSON | None:
    """Return a chunk's delta with its tool call as `function_call`, or None for any call but the first.

    `parallel_tool_calls: false` is not honoured by every model, and clients would join the arguments of all calls.
    """
    if "tool_calls" not in delta:
        return delta
    call = delta["tool_calls"][0]
    return {"function_call": _to_function(call)} if call["index"] == 0 else None


def _to_function(call: JSON) -> JSON:
    """Return a call's function. The input of a custom tool takes the place of the arguments."""
    if "custom" not in call:
        function: JSON = call["function"]
        return function
    return {"arguments" if name == "input" else name: value for name, value in call["custom"].items()}
