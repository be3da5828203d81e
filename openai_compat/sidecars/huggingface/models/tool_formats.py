"""Formats in which models write tool calls, one of which a model has learned with its chat template."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from openai_compat.core.types import JSONObject, ToolCallDelta

from .streamed_calls import StreamedCalls


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """Markers and keys of a tool call, or of a list of calls if `is_list`.

    Without `begin`, an answer is a call if it is a JSON object. Without `end`, a call lasts to the end of the answer.
    `arguments` is the key of a call's arguments.
    """

    begin: str
    end: str
    arguments: str = "arguments"
    is_list: bool = False

    def schema(self, tools: Sequence[JSONObject], *, allows_many: bool = False) -> dict[str, Any]:
        """Return the JSON schema of a call of one of `tools`, or in a list of calls of several of them."""
        calls = {"anyOf": [self._call_schema(tool["function"], index) for index, tool in enumerate(tools)]}
        limit = {} if allows_many else {"maxItems": 1}
        return {"type": "array", "items": calls, "minItems": 1, **limit} if self.is_list else calls

    def _call_schema(self, function: JSONObject, index: int) -> dict[str, Any]:
        # With an `$id`, references such as `#/$defs/Place` begin at the parameters instead of the root.
        arguments = {"$id": f"urn:tool:{index}", **(function.get("parameters") or {"type": "object"})}
        return {
            "type": "object",
            "properties": {"name": {"const": function["name"]}, self.arguments: arguments},
            "required": ["name", self.arguments],
            "additionalProperties": False,
        }


HERMES: Final = ToolFormat("<tool_call>", "</tool_call>")
"""Qwen, Hermes, SmolLM3 and most others."""
MISTRAL: Final = ToolFormat("[TOOL_CALLS]", "", is_list=True)
GRANITE: Final = ToolFormat("<|tool_call|>", "", is_list=True)
BARE: Final = ToolFormat("", "", "parameters")
"""Llama 3."""
PYTHON_TAG: Final = "<|python_tag|>"
"""Token that Llama 3.1 and 3.3 may write before a call."""


def find_tool_format(template: str) -> ToolFormat | None:
    """Return the format that a chat template uses, or None if it has no tools or an unknown format."""
    if "tools" not in template:
        return None
    if "[TOOL_CALLS]" in template:
        return None if "[ARGS]" in template else MISTRAL
    if GRANITE.begin in template:
        return GRANITE
    if "<tool_call>" in template:
        return None if "<function=" in template else HERMES
    return BARE if '"parameters"' in template else None


class ToolCallParser:
    """Incremental parser that separates an answer's content from its tool calls.

    With `streams`, which needs a constraint on the calls, their arguments are returned as they arrive. Otherwise only
    complete calls are returned. `names` are the known tools. In a format without a mark, other calls are content.
    """

    def __init__(
        self,
        format_: ToolFormat,
        *,
        is_forced: bool = False,
        allows_many: bool = True,
        streams: bool = False,
        names: Container[str] | None = None,
    ) -> None:
        self._format = format_
        self._allows_many = allows_many
        self._streams = streams
        self._names = names
        self._held = ""
        self._is_in_call = False
        self._is_decided = is_forced
        self._awaits_end = False
        self._streamed: StreamedCalls | None = None
        self.call_count = 0
        if is_forced:
            self._enter_call()

    @property
    def is_cut(self) -> bool:
        """Return True between the beginning and the end of a streamed call."""
        return self._streamed is not None and self._streamed.call_count > 0

    @property
    def has_held_text(self) -> bool:
        """Return True if text is held that may become content or part of a call."""
        return bool(self._held)

    def push(self, text: str) -> tuple[str, list[ToolCallDelta]]:
        """Return the content that `text` adds, and the calls that it completes or the parts of them that it adds.

        Raises:
            InvalidAnswerError: the arguments of a streamed call are not JSON.
        """
        self._held += text
        content: list[str] = []
        calls: list[ToolCallDelta] = []
        while self._step(content, calls):
            pass
        return "".join(content), calls

    def flush(self) -> tuple[str, list[ToolCallDelta]]:
        """Return the rest at the end of the answer. An unfinished call that cannot be parsed is content."""
        held, self._held = self._held, ""
        if self.is_cut or self._awaits_end:
            return "", []
        if not self._is_in_call:
            # White space between the last call and the end is no content.
            return (held, []) if held.strip() or not self.call_count else ("", [])
        return self._parse(held)

    def _enter_call(self) -> None:
        self._is_in_call = True
        if self._streams and (self._allows_many or not self.call_count):
            self._streamed = StreamedCalls(self._format, self.call_count)

    def _step(self, content: list[str], calls: list[ToolCallDelta]) -> bool:
        """Parse the next marker or call. Return True if one was found, so that another may follow."""
        if self._awaits_end and not self._skip_end():
            return False
        if not self._is_in_call:
            return self._find_begin(content)
        if self._streamed is not None and self._take_deltas(self._streamed, calls):
            return True
        if self.is_cut or not self._format.end or self._format.end not in self._held:
            return False
        call, _, self._held = self._held.partition(self._format.end)
        text, found = self._parse(call)
        content.append(text)
        calls += found
        self._is_in_call, self._streamed = False, None
        return True

    def _take_deltas(self, streamed: StreamedCalls, calls: list[ToolCallDelta]) -> bool:
        """Return True if the last call between the marks is complete."""
        deltas, self._held = streamed.take(self._held)
        calls += deltas
        if streamed.is_complete:
            self.call_count += streamed.call_count
            self._is_in_call, self._streamed = False, None
            self._awaits_end = bool(self._format.end)
        return streamed.is_complete

    def _skip_end(self) -> bool:
        """Skip the mark behind a streamed call, which a model may leave out. Return False while it is incomplete."""
        rest = self._held.lstrip()
        self._awaits_end = self._format.end.startswith(rest) and rest != self._format.end
        if self._awaits_end:
            return False
        self._held = rest.removeprefix(self._format.end)
        return True

    def _find_begin(self, content: list[str]) -> bool:
        begin = self._format.begin
        if not begin:
            return self._find_object(content)
        before, marker, after = self._held.partition(begin)
        if marker:
            if before.strip():
                content.append(before)
            self._held = after
            self._enter_call()
            return True
        partial = next((size for size in range(len(begin) - 1, 0, -1) if self._held.endswith(begin[:size])), 0)
        text = self._held[: len(self._held) - partial]
        # White space before a call belongs neither to the call nor to the content.
        emitted = text if partial == 0 else text.rstrip()
        if self.call_count and not emitted.strip():
            return False
        content.append(emitted)
        self._held = self._held[len(emitted) :]
        return False

    def _find_object(self, content: list[str]) -> bool:
        """Decide by the first character whether the answer is a call."""
        start = self._held.lstrip().removeprefix(PYTHON_TAG).lstrip()
        if not self._is_decided and PYTHON_TAG.startswith(start):
            return False
        if not self._is_decided and start.startswith("{"):
            self._held = start
            self._is_decided = True
            self._enter_call()
            return True
        self._is_decided = True
        content.append(self._held)
        self._held = ""
        return False

    def _parse(self, text: str) -> tuple[str, list[ToolCallDelta]]:
        """Return the calls in `text`, or `text` as content if it has none."""
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError):
            return self._format.begin + text, []
        calls = parsed if isinstance(parsed, list) else [parsed]
        if not calls or not all(self._is_call(call) for call in calls):
            return self._format.begin + text, []
        limit = len(calls) if self._allows_many else max(0, 1 - self.call_count)
        return "", [self._to_delta(call) for call in calls[:limit]]

    def _is_call(self, call: Any) -> bool:
        if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
            return False
        if self._format.begin:
            return True
        # Without a mark, only its keys tell a call from an answer in JSON.
        return self._format.arguments in call and (self._names is None or call["name"] in self._names)

    def _to_delta(self, call: Mapping[str, Any]) -> ToolCallDelta:
        arguments = call.get(self._format.arguments) or {}
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        index, self.call_count = self.call_count, self.call_count + 1
        return ToolCallDelta(index, text, f"call_{index}", call["name"])
