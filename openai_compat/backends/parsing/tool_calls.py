"""Parser for tool calls that repairs the indexes, ids and names of OpenAI-compatible servers."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from openai_compat.core.types import JSONObject, ToolCallDelta


class _Call(NamedTuple):
    """The parts of a tool call that have been sent so far."""

    id: str | None = None
    name: str | None = None


class ToolCallParser:
    """Parser for the tool calls of one choice. It numbers them from 0 and reports each id and name once."""

    __slots__ = ("_calls", "_current")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._current: dict[int | None, int] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def read(self, message: JSONObject) -> tuple[ToolCallDelta, ...]:
        """Return the tool calls of a message or a delta. The deprecated `function_call` becomes call 0."""
        calls = message.get("tool_calls")
        legacy = message.get("function_call")
        deltas = [*(calls if isinstance(calls, list) else ()), *([{"index": 0, "function": legacy}] if legacy else ())]
        return tuple(self._read_delta(delta) for delta in deltas if isinstance(delta, dict))

    def _read_delta(self, delta: JSONObject) -> ToolCallDelta:
        function = delta.get("function")
        if not isinstance(function, dict):
            function = {}
        index, id_, name = delta.get("index"), non_empty_text(delta.get("id")), non_empty_text(function.get("name"))
        number = self._number(index if isinstance(index, int) else None, id_, name)
        call = self._calls[number]
        new = _Call(None if call.id else id_, None if call.name else name)
        self._calls[number] = _Call(call.id or id_, call.name or name)
        return ToolCallDelta(number, _to_arguments(function.get("arguments")), new.id, new.name)

    def _number(self, index: int | None, id_: str | None, name: str | None) -> int:
        """Return the number of the delta's call, found by index, by id, or as the last one. Start a call if needed."""
        number = self._current.get(index)
        if index is None and id_ is not None:
            number = next((position for position, call in enumerate(self._calls) if call.id == id_), number)
        if number is None or _starts_another(self._calls[number], index, id_, name):
            number = len(self._calls)
            self._calls.append(_Call())
        self._current[index] = number
        return number


def _starts_another(call: _Call, index: int | None, id_: str | None, name: str | None) -> bool:
    """Return True if the delta belongs to another call than `call`, although its index does not differ.

    Some servers omit the index, others give all calls the index 0. There, a delta with a function name and a new id
    starts another call. A new id alone does not, because some servers send a new one with every delta.
    """
    if id_ is not None and call.id is not None:
        return id_ != call.id and (name is not None or index is None)
    return index is None and name is not None and call.name is not None


def _to_arguments(arguments: Any) -> str:
    """Return the arguments as OpenAI's JSON string. Some servers send the JSON value itself."""
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else json.dumps(arguments, ensure_ascii=False)


def non_empty_text(value: Any) -> str | None:
    """Return the value if it is a non-empty string, else None."""
    return value if isinstance(value, str) and value else None
