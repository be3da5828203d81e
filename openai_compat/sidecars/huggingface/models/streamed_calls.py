"""Calls of tools whose arguments are passed on while the model writes them, because a constraint keeps them valid."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from openai_compat.core.errors import InvalidAnswerError
from openai_compat.core.types import ToolCallDelta

if TYPE_CHECKING:
    from .tool_formats import ToolFormat

_HEAD: Final = r'\{"name": (?P<name>"(?:[^"\\]|\\.)*"), "%s": (?=\{)'
"""A call up to its arguments, in the one layout that constraints allow."""


class StreamedCalls:
    """Reader of the calls between the marks of a format, each of which has an object as its arguments.

    `index` is the number of the first call.
    """

    def __init__(self, format_: ToolFormat, index: int) -> None:
        head = _HEAD % re.escape(format_.arguments)
        self._first = re.compile(rf"[ \n]?\[{head}" if format_.is_list else f"[ \n]?{head}")
        self._next = re.compile(rf"\}}, {head}") if format_.is_list else None
        self._end = "}]" if format_.is_list else "}"
        self._index = index
        self._arguments: ObjectScanner | None = None
        self.call_count = 0
        self.is_complete = False

    def take(self, text: str) -> tuple[list[ToolCallDelta], str]:
        """Return the deltas in `text` and the rest of it, which belongs before the next text.

        Raises:
            InvalidAnswerError: the arguments of a call are not JSON.
        """
        deltas: list[ToolCallDelta] = []
        while text and not self.is_complete:
            rest = self._take_head(text, deltas) if self._arguments is None else self._take_arguments(text, deltas)
            if rest == text:
                break
            text = rest
        return deltas, text

    def _take_head(self, text: str, deltas: list[ToolCallDelta]) -> str:
        """Take the text up to the arguments of a call, or the end of the last call."""
        if self.call_count and text.startswith(self._end):
            self.is_complete = True
            return text[len(self._end) :]
        pattern = self._next if self.call_count else self._first
        head = pattern.match(text) if pattern is not None else None
        if head is None:
            return text
        index = self._index + self.call_count
        deltas.append(ToolCallDelta(index, id=f"call_{index}", name=json.loads(head["name"])))
        self.call_count += 1
        self._arguments = ObjectScanner()
        return text[head.end() :]

    def _take_arguments(self, text: str, deltas: list[ToolCallDelta]) -> str:
        assert self._arguments is not None  # noqa: S101 - the caller has checked it
        part = self._arguments.take(text)
        if self._arguments.is_complete:
            self._arguments = None
        deltas.append(ToolCallDelta(self._index + self.call_count - 1, part))
        return text[len(part) :]


class ObjectScanner:
    """Scanner of the text of a JSON object, which finds its end."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._depth = 0
        self._is_in_string = False
        self._is_escaped = False
        self.is_complete = False

    def take(self, text: str) -> str:
        """Return the part of `text` that belongs to the object. Its end is returned only if the whole is valid.

        Raises:
            InvalidAnswerError: the object is not valid JSON.
        """
        part = text[: self._find_end(text)]
        self._parts.append(part)
        if self.is_complete:
            try:
                json.loads("".join(self._parts))
            except (ValueError, RecursionError) as error:
                raise InvalidAnswerError("The model wrote a tool call that is not valid JSON.") from error
        return part

    def _find_end(self, text: str) -> int:
        for position, character in enumerate(text):
            if self._is_escaped:
                self._is_escaped = False
            elif self._is_in_string:
                self._is_escaped = character == "\\"
                self._is_in_string = character != '"'
            elif character == '"':
                self._is_in_string = True
            else:
                self._depth += (character in "{[") - (character in "}]")
                if not self._depth:
                    self.is_complete = True
                    return position + 1
        return len(text)
