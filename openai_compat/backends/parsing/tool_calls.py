"""Tool calls as OpenAI-like servers send them, their indexes mended: numbered from 0, each id and name told once."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from openai_compat.core.types import JSONObject, ToolCallDelta


class _Call(NamedTuple):
    """What has been told of a call so far."""

    id: str | None = None
    name: str | None = None


class ToolCallReader:
    """Reads the tool calls of one choice, piece by piece."""

    __slots__ = ("_calls", "_current")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._current: dict[int | None, int] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def read(self, message: JSONObject) -> tuple[ToolCallDelta, ...]:
        """The tool calls in a message or in a piece of one; the older `function_call` is read as the call 0."""
        calls = message.get("tool_calls")
        legacy = message.get("function_call")
        pieces = [*(calls if isinstance(calls, list) else ()), *([{"index": 0, "function": legacy}] if legacy else ())]
        return tuple(self._read_piece(piece) for piece in pieces if isinstance(piece, dict))

    def _read_piece(self, piece: JSONObject) -> ToolCallDelta:
        function = piece.get("function")
        if not isinstance(function, dict):
            function = {}
        index, id_, name = piece.get("index"), to_text(piece.get("id")), to_text(function.get("name"))
        number = self._number(index if isinstance(index, int) else None, id_, name)
        call = self._calls[number]
        news = _Call(None if call.id else id_, None if call.name else name)
        self._calls[number] = _Call(call.id or id_, call.name or name)
        return ToolCallDelta(number, _to_arguments(function.get("arguments")), news.id, news.name)

    def _number(self, index: int | None, id_: str | None, name: str | None) -> int:
        """Which call the piece belongs to, by its index, else by its id, else the last; begins one where needed."""
        number = self._current.get(index)
        if index is None and id_ is not None:
            number = next((place for place, call in enumerate(self._calls) if call.id == id_), number)
        if number is None or _begins_another(self._calls[number], index, id_, name):
            number = len(self._calls)
            self._calls.append(_Call())
        self._current[index] = number
        return number


def _begins_another(call: _Call, index: int | None, id_: str | None, name: str | None) -> bool:
    """Some servers leave out the index, others give all calls the index 0: there a piece that names a function and
    brings an id of its own begins another call. An id alone does not: some send a new one with every piece.
    """
    if id_ is not None and call.id is not None:
        return id_ != call.id and (name is not None or index is None)
    return index is None and name is not None and call.name is not None


def _to_arguments(arguments: Any) -> str:
    """A tool call's arguments are JSON in a string; some servers send the JSON itself."""
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else json.dumps(arguments, ensure_ascii=False)


def to_text(value: Any) -> str | None:
    """The value if it is a text with anything in it."""
    return value if isinstance(value, str) and value else None
