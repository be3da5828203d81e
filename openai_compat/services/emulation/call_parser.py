"""Incremental parser that separates an answer's text from the tool calls that the model wrote into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from openai_compat.core.errors import InvalidAnswerError
from openai_compat.core.types import ToolCallDelta

from .json_repair import end_of_value, read_json
from .tool_rules import EmulatedTool, ToolRules

BEGIN: Final = "<tool_call>"
END: Final = "</tool_call>"
MAX_CALL_CHARS: Final = 262_144
"""Length of the calls of one answer, which are held until they are complete. To parse them takes about 3 ms."""
_BARE: Final = tuple(
    f"{fence}{bracket}{key}"
    for fence in ("", "```", "```json", "```tool_call")
    for bracket in ("", "[")
    for key in ('{"name"', '{"function"', '{"type":"function"')
)
"""Beginnings of calls without the marker, which some models leave out. White space is ignored."""
_BARE_CHARS: Final = 200
"""Characters of an answer after which it is clear whether it begins so."""


class CallTextParser:
    """Parser of one choice's text. The text before a call is returned at once, and calls at the end."""

    def __init__(self, rules: ToolRules) -> None:
        self._rules = rules
        self._is_begun = False
        self._pending = ""
        """Text that may be the beginning of a call."""
        self._held: list[str] | None = [] if rules.is_required else None
        """Parts of the text from the first call on."""
        self._held_chars = 0

    def push(self, text: str) -> str:
        """Return the content that `text` adds.

        Raises:
            InvalidAnswerError: the calls are too long.
        """
        if self._held is not None:
            self._hold(text)
            return ""
        text = self._pending + text
        self._pending = ""
        if not self._is_begun and self._may_be_bare(text):
            return ""
        before, marker, after = text.partition(BEGIN)
        if marker:
            self._hold(marker + after)
            return before.rstrip()
        size = _partial_marker(text)
        self._pending = text[len(text) - size :]
        return text[: len(text) - size]

    def end(self, *, is_complete: bool) -> tuple[str, list[ToolCallDelta]]:
        """Return the rest of the content and the calls. A call that was cut off by a limit is left out.

        Raises:
            InvalidAnswerError: a call is malformed, its tool does not exist, its arguments do not match the schema, or
                the answer lacks the call that the client requires.
        """
        text = self._pending + "".join(self._held or ())
        has_marker = BEGIN in text
        values: Iterable[Any] = ()
        if has_marker:
            values = self._find_blocks(text, is_complete=is_complete)
        elif is_complete:  # the repair would complete a call that was cut off
            values = self._find_bare(text)
        calls = self._to_calls(values)
        if not calls and is_complete and self._rules.is_required:
            raise InvalidAnswerError("The model did not call a tool, which 'tool_choice' requires.")
        return ("" if calls or has_marker or self._rules.is_required else text), calls

    def _may_be_bare(self, text: str) -> bool:
        """Return True while an answer may begin as a call without the marker, and hold its text."""
        start = "".join(text[:_BARE_CHARS].split())
        if start.startswith(_BARE):
            self._hold(text)
        elif len(text) < _BARE_CHARS and any(bare.startswith(start) for bare in _BARE):
            self._pending = text
        else:
            self._is_begun = True
        return not self._is_begun

    def _hold(self, text: str) -> None:
        self._held = [] if self._held is None else self._held
        self._held.append(text)
        self._held_chars += len(text)
        if self._held_chars > MAX_CALL_CHARS:
            raise InvalidAnswerError("The model's tool calls are too long.")

    def _find_blocks(self, text: str, *, is_complete: bool) -> Iterator[Any]:
        """Yield the value of each block between the markers. What a model writes around them is not for the client."""
        start = text.find(BEGIN)
        while start >= 0:
            start += len(BEGIN)
            value_end = end_of_value(text, start)  # a string of the arguments may have a marker
            following = text.find(BEGIN, value_end)
            block = text[start:following] if following >= 0 else text[start:]
            end = block.find(END, value_end - start)
            if end < 0 and not is_complete:
                return
            try:
                yield read_json(block[:end] if end >= 0 else block)
            except ValueError as error:
                raise InvalidAnswerError("The model wrote a tool call that is not valid JSON.") from error
            start = following

    def _find_bare(self, text: str) -> list[Any]:
        """Return the calls of an answer without markers. Any other JSON is an answer."""
        try:
            value = read_json(text) if text else None
        except ValueError:
            return []
        objects = value if isinstance(value, list) else [value]
        return objects if all(map(self._is_call, objects)) else []

    def _is_call(self, value: Any) -> bool:
        """Return True for an object with the name of a tool, or with any name and arguments."""
        if not isinstance(value, Mapping):
            return False
        name, arguments = _call_of(value)
        return self._find_tool(value) is not None or (isinstance(name, str) and isinstance(arguments, dict))

    def _to_calls(self, values: Iterable[Any]) -> list[ToolCallDelta]:
        calls: list[ToolCallDelta] = []
        for value in values:
            for item in value if isinstance(value, list) else [value]:
                if calls and not self._rules.allows_many:
                    return calls
                calls.append(self._to_call(len(calls), item))
        return calls

    def _to_call(self, index: int, value: Any) -> ToolCallDelta:
        tool = self._find_tool(value)
        if tool is None:
            raise InvalidAnswerError("The model called a tool that the request does not have or does not allow.")
        return tool.to_call(index, _call_of(value)[1])

    def _find_tool(self, value: Any) -> EmulatedTool | None:
        name = _call_of(value)[0] if isinstance(value, Mapping) else None
        return self._rules.tools.get(name) if isinstance(name, str) else None


def _call_of(value: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the name and the arguments of a call in any of the forms that models write."""
    function = value.get("function")
    call = function if isinstance(function, Mapping) else value
    name = call.get("name", function if isinstance(function, str) else None)
    return name, call.get("arguments", call.get("parameters"))


def _partial_marker(text: str) -> int:
    """Return the length of the end of a text that may be the beginning of a marker."""
    return next((size for size in range(len(BEGIN) - 1, 0, -1) if text.endswith(BEGIN[:size])), 0)
