"""Parser for tool calls that repairs the indexes, ids and names of OpenAI-compatible servers."""

from __future__ import annotations

import json
from typing import Any, Literal

from openai_compat.core.large_json import parse_json
from openai_compat.core.types import JSONObject, ToolCallDelta

from .surrogates import HalfJoiner


class _Call:
    """The state of one tool call. Its deltas wait for its name, which some servers send after its id."""

    __slots__ = ("id", "is_complete", "is_started", "name", "type", "waiting")

    def __init__(self) -> None:
        self.id: str | None = None
        self.name: str | None = None
        self.type: Literal["function", "custom"] = "function"
        self.waiting = ""
        self.is_started = self.is_complete = False


class ToolCallParser:
    """Parser for the tool calls of one choice. It numbers them from 0 and reports each id and name once."""

    __slots__ = ("_calls", "_current", "_halves")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._current: dict[int | None, int] = {}
        self._halves = HalfJoiner()

    def __bool__(self) -> bool:
        return bool(self._calls)

    def read(self, message: JSONObject) -> tuple[ToolCallDelta, ...]:
        """Return the tool calls of a message or a delta. The deprecated `function_call` becomes call 0."""
        calls = message.get("tool_calls")
        legacy = message.get("function_call")
        deltas = [*(calls if isinstance(calls, list) else ()), *([{"index": 0, "function": legacy}] if legacy else ())]
        found = [self._read_delta(delta) for delta in deltas if isinstance(delta, dict)]
        return tuple(delta for delta in found if delta is not None)

    def read_end(self) -> tuple[ToolCallDelta, ...]:
        """Return the calls that still wait for their name, because the answer has ended."""
        waiting = [(number, call) for number, call in enumerate(self._calls) if not call.is_started]
        return tuple(ToolCallDelta(number, call.waiting, call.id, call.name, call.type) for number, call in waiting)

    def repair(self, delta: JSONObject) -> JSONObject:
        """Return a delta with its call's number, and without an id or a name that was sent before.

        The same object is returned if nothing changes. Unlike `read`, it neither drops unknown keys nor waits.
        """
        body = delta.get("function")
        function: JSONObject = body if isinstance(body, dict) else {}
        index, id_, name = delta.get("index"), non_empty_text(delta.get("id")), non_empty_text(function.get("name"))
        arguments = non_empty_text(function.get("arguments")) or ""
        number = self._number(index if isinstance(index, int) else None, id_, name, bool(arguments))
        call = self._calls[number]
        changed: dict[str, Any] = {"index": number} if index != number else {}
        repeated = {key for key, known in (("id", call.id), ("type", call.id)) if known and id_ and key in delta}
        if call.name is not None and name is not None:
            changed["function"] = {key: value for key, value in function.items() if key != "name"}
        if call.name is None and name is not None:
            call.is_complete = arguments.startswith("{") and _is_json(arguments)
        call.id, call.name = call.id or id_, call.name or name
        if not changed and not repeated:
            return delta
        return {"index": number, **{key: value for key, value in delta.items() if key not in repeated}, **changed}

    def _read_delta(self, delta: JSONObject) -> ToolCallDelta | None:
        """Return what is new in the delta, or None if it has to wait for the call's name."""
        custom, function = delta.get("custom"), delta.get("function")
        body: JSONObject = custom if isinstance(custom, dict) else function if isinstance(function, dict) else {}
        index, id_, name = delta.get("index"), non_empty_text(delta.get("id")), non_empty_text(body.get("name"))
        arguments = _to_arguments(body.get("input" if isinstance(custom, dict) else "arguments"))
        number = self._number(index if isinstance(index, int) else None, id_, name, bool(arguments))
        call = self._calls[number]
        arguments = self._halves.join(number, arguments)
        if call.is_started:
            return ToolCallDelta(number, arguments, type=call.type) if arguments else None
        if id_ is not None and all(other.id != id_ for other in self._calls):
            call.id = id_
        call.name = call.name or name
        if isinstance(custom, dict) or delta.get("type") == "custom":
            call.type = "custom"
        call.waiting += arguments
        if call.name is None:
            return None
        call.is_started = True
        arguments, call.waiting = call.waiting, ""
        call.is_complete = arguments.startswith("{") and _is_json(arguments)
        return ToolCallDelta(number, arguments, call.id, call.name, call.type)

    def _number(self, index: int | None, id_: str | None, name: str | None, has_arguments: bool) -> int:
        """Return the number of the delta's call, found by index, by id, or as the last one. Start a call if needed."""
        number = self._current.get(index)
        if id_ is not None and (index is None or (number is None and name is None)):
            number = next((position for position, call in enumerate(self._calls) if call.id == id_), number)
        elif number is None and id_ is None and name is None and self._current.keys() == {None}:
            number = self._current[None]  # the delta that started the call had no index
        if number is None or _starts_another(self._calls[number], index, id_, name, has_arguments):
            number = len(self._calls)
            self._calls.append(_Call())
        self._current[index] = self._current[None] = number
        return number


def _starts_another(call: _Call, index: int | None, id_: str | None, name: str | None, has_arguments: bool) -> bool:
    """Return True if the delta belongs to another call than `call`, although its index does not differ.

    Some servers omit the index, others give all calls the index 0. There, a delta with a function name and a new id
    starts another call. A new id alone does not, because some servers send a new one with every delta. Without ids, the
    name of another function does, and arguments after complete ones.
    """
    if id_ is not None and call.id is not None:
        return id_ != call.id and (name is not None or index is None)
    if name is None or call.name is None:
        return False
    return index is None or name != call.name or (call.is_complete and has_arguments)


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except (ValueError, RecursionError):
        return False
    return True


def _to_arguments(arguments: Any) -> str:
    """Return the arguments as OpenAI's JSON string. Some servers send the JSON value itself."""
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else json.dumps(arguments, ensure_ascii=False)


def non_empty_text(value: Any) -> str | None:
    """Return the value if it is a non-empty string, else None."""
    return value if isinstance(value, str) and value else None
