"""How models write tool calls: each template has taught its model one of a few ways."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from openai_compat.core.types import JSONObject, ToolCallDelta


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """`begin` and `end` stand around one call, or around a list of calls where `is_list`.

    Without `begin` an answer is a call if it is a JSON object; without `end` the answer's end is the call's.
    `arguments` is the key of a call's arguments.
    """

    begin: str
    end: str
    arguments: str = "arguments"
    is_list: bool = False

    def schema(self, tools: Sequence[JSONObject]) -> dict[str, Any]:
        """What a forced call must look like: one of `tools`."""
        calls = {"anyOf": [self._schema_of(tool["function"]) for tool in tools]}
        return {"type": "array", "items": calls, "minItems": 1, "maxItems": 1} if self.is_list else calls

    def _schema_of(self, function: JSONObject) -> dict[str, Any]:
        arguments = function.get("parameters") or {"type": "object"}
        return {
            "type": "object",
            "properties": {"name": {"const": function["name"]}, self.arguments: arguments},
            "required": ["name", self.arguments],
            "additionalProperties": False,
        }


HERMES: Final = ToolFormat("<tool_call>", "</tool_call>")
"""Qwen, Hermes, SmolLM3 and most others."""
MISTRAL: Final = ToolFormat("[TOOL_CALLS]", "", is_list=True)
BARE: Final = ToolFormat("", "", "parameters")
"""Llama 3."""


def find_tool_format(template: str) -> ToolFormat | None:
    """The way that a chat template teaches; None where it knows no tools, or teaches a way that is not known here."""
    if "tools" not in template:
        return None
    if "[TOOL_CALLS]" in template:
        return MISTRAL
    if "<tool_call>" in template:
        return None if "<function=" in template else HERMES
    return BARE if '"parameters"' in template else None


class ToolCallParser:
    """Tells an answer's text from its tool calls, as the answer comes. A call is told when it is whole."""

    def __init__(self, format_: ToolFormat, *, is_forced: bool = False, takes_many: bool = True) -> None:
        self._format = format_
        self._takes_many = takes_many
        self._held = ""
        self._is_inside = is_forced
        self._is_decided = is_forced
        self.calls = 0

    def push(self, text: str) -> tuple[str, list[ToolCallDelta]]:
        """What `text` adds to the content, and the calls that it completes."""
        self._held += text
        content: list[str] = []
        calls: list[ToolCallDelta] = []
        while self._step(content, calls):
            pass
        return "".join(content), calls

    def flush(self) -> tuple[str, list[ToolCallDelta]]:
        """The same at the answer's end: what looked like a call and is none is content."""
        held, self._held = self._held, ""
        if not self._is_inside:
            return held, []
        return self._parsed(held)

    def _step(self, content: list[str], calls: list[ToolCallDelta]) -> bool:
        """Whether something has been found, so that more may be."""
        if not self._is_inside:
            return self._find_begin(content)
        if not self._format.end or self._format.end not in self._held:
            return False
        call, _, self._held = self._held.partition(self._format.end)
        text, found = self._parsed(call)
        content.append(text)
        calls += found
        self._is_inside = False
        return True

    def _find_begin(self, content: list[str]) -> bool:
        begin = self._format.begin
        if not begin:
            return self._find_object(content)
        before, mark, after = self._held.partition(begin)
        if mark:
            if before.strip():
                content.append(before)
            self._held, self._is_inside = after, True
            return True
        cut = next((size for size in range(len(begin) - 1, 0, -1) if self._held.endswith(begin[:size])), 0)
        # White space before a call belongs to neither.
        kept = self._held[: len(self._held) - cut]
        told = kept if cut == 0 else kept.rstrip()
        if self.calls and not told.strip():
            return False
        content.append(told)
        self._held = self._held[len(told) :]
        return False

    def _find_object(self, content: list[str]) -> bool:
        start = self._held.lstrip()
        if not self._is_decided and not start:
            return False
        if not self._is_decided and start.startswith("{"):
            self._is_inside = self._is_decided = True
            return True
        self._is_decided = True
        content.append(self._held)
        self._held = ""
        return False

    def _parsed(self, text: str) -> tuple[str, list[ToolCallDelta]]:
        try:
            found = json.loads(text)
        except ValueError:
            return self._format.begin + text, []
        listed = found if isinstance(found, list) else [found]
        if not listed or not all(self._is_call(call) for call in listed):
            return self._format.begin + text, []
        room = len(listed) if self._takes_many else max(0, 1 - self.calls)
        return "", [self._to_delta(call) for call in listed[:room]]

    def _is_call(self, call: Any) -> bool:
        return isinstance(call, Mapping) and isinstance(call.get("name"), str)

    def _to_delta(self, call: Mapping[str, Any]) -> ToolCallDelta:
        arguments = call.get(self._format.arguments) or {}
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        index, self.calls = self.calls, self.calls + 1
        return ToolCallDelta(index, written, f"call_{index}", call["name"])
