"""Emulated structured output, by instructions in the prompt and a check of the complete answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from openai_compat.core.errors import InvalidAnswerError
from openai_compat.core.shortening import shorten
from openai_compat.core.types import ChatDelta, JSONObject

from .call_parser import MAX_CALL_CHARS
from .json_repair import read_json, repair_value, to_json_text
from .schema_check import Violation, check_value
from .tool_rules import MAX_REASON_CHARS

ANY_OBJECT: Final = {"type": "object"}


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """The JSON schema of an answer. `description` is what the client says about it."""

    schema: Any
    description: str = ""

    def describe(self) -> str:
        """Return the instructions for the model."""
        lines = ["Answer with one JSON value and nothing else. Write neither an explanation nor a code block."]
        if self.schema == ANY_OBJECT:
            return f"{lines[0]} The value must be an object."
        lines.append(f"The value must match this JSON schema:\n{json.dumps(self.schema, ensure_ascii=False)}")
        return "\n".join([*lines, self.description] if self.description else lines)

    def to_valid(self, text: str) -> str:
        """Return the JSON of an answer, repaired if possible.

        Raises:
            InvalidAnswerError: it is not JSON, or the schema does not allow it.
        """
        try:
            value = read_json(text)
        except ValueError as error:
            raise InvalidAnswerError("The model's answer is not JSON, which 'response_format' asks for.") from error
        try:
            repaired = repair_value(value, self.schema)
            check_value(repaired, self.schema)
            return to_json_text(repaired)
        except (Violation, ValueError) as error:
            reason = shorten(str(error), MAX_REASON_CHARS)
            raise InvalidAnswerError(f"The model's answer does not match the schema: {reason}.") from error


def to_format(response_format: JSONObject) -> AnswerFormat | None:
    """Return the format that a request asks for, or None for text."""
    if response_format.get("type") == "json_object":
        return AnswerFormat(ANY_OBJECT)
    if response_format.get("type") != "json_schema":
        return None
    given = response_format.get("json_schema")
    named: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    return AnswerFormat(named.get("schema", ANY_OBJECT), str(named.get("description") or ""))


class TextCollector:
    """Collector of one choice's text, which is checked once it is complete."""

    def __init__(self, format_: AnswerFormat) -> None:
        self._format = format_
        self._parts: list[str] = []
        self._chars = 0
        self._is_replaced = False
        """True for an answer of tool calls or a refusal instead of the format."""

    def add(self, delta: ChatDelta) -> None:
        """Add the text of a delta.

        Raises:
            InvalidAnswerError: the text is too long.
        """
        self._is_replaced = self._is_replaced or bool(delta.tool_calls or delta.refusal)
        if delta.content:
            self._parts.append(delta.content)
            self._chars += len(delta.content)
        if self._chars > MAX_CALL_CHARS:
            raise InvalidAnswerError("The model's answer is too long for structured output.")

    def end(self, *, is_complete: bool) -> str:
        """Return the text for the client. It is not checked if it was cut off or goes with tool calls or a refusal.

        Raises:
            InvalidAnswerError: the text does not have the format.
        """
        text = "".join(self._parts)
        return self._format.to_valid(text) if is_complete and not self._is_replaced else text
