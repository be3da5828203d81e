"""Output items of a response, collected from a chat model's deltas."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from openai_compat.core.text_buffer import TextBuffer
from openai_compat.core.types import JSON, ChatDelta, TokenLogprob, ToolCallDelta
from openai_compat.services.openai_objects import new_id

from .objects import INCOMPLETE_REASONS, to_annotation, to_logprobs
from .tools import NO_ARGUMENTS, ClientTool, ToolMap, unwrap_input

Seal = Callable[[str, Sequence[Mapping[str, Any]]], str]
"""Returns the text and the details of reasoning sealed, for a client that sends it back."""


@dataclass(frozen=True, slots=True)
class PartKind:
    """A kind of text that a model produces, with its place in an item and its events.

    `part_event` and `index_key` are None for the text of a call, which is no part of a list.
    """

    name: str
    item_type: str
    text_key: str
    event: str
    part_event: str | None = None
    index_key: str | None = None


OUTPUT_TEXT: Final = PartKind(
    "output_text", "message", "text", "response.output_text", "response.content_part", "content_index"
)
REFUSAL: Final = PartKind("refusal", "message", "refusal", "response.refusal", "response.content_part", "content_index")
REASONING_TEXT: Final = PartKind(
    "reasoning_text", "reasoning", "text", "response.reasoning_text", "response.content_part", "content_index"
)
SUMMARY_TEXT: Final = PartKind(
    "summary_text",
    "reasoning",
    "text",
    "response.reasoning_summary_text",
    "response.reasoning_summary_part",
    "summary_index",
)
ARGUMENTS: Final = PartKind("arguments", "function_call", "arguments", "response.function_call_arguments")
INPUT: Final = PartKind("input", "custom_tool_call", "input", "response.custom_tool_call_input")

ID_PREFIXES: Final = {"message": "msg_", "reasoning": "rs_", "function_call": "fc_", "custom_tool_call": "ctc_"}


class Part:
    """A text in progress. With `is_wrapped` it is the arguments of a function that stands in for a custom tool."""

    __slots__ = ("annotations", "index", "is_wrapped", "item", "kind", "logprobs", "written")

    def __init__(self, kind: PartKind, item: Item, *, is_wrapped: bool = False) -> None:
        self.kind = kind
        self.item = item
        self.index = len(item.parts)
        self.is_wrapped = is_wrapped
        self.written = TextBuffer()
        self.logprobs: list[TokenLogprob] = []
        self.annotations: list[Mapping[str, Any]] = []
        item.parts.append(self)

    @property
    def text(self) -> str:
        """The text so far."""
        text = str(self.written)
        return unwrap_input(text) if self.is_wrapped else text

    def to_object(self) -> JSON:
        """Return the part as it stands in its item."""
        value: JSON = {"type": self.kind.name, self.kind.text_key: self.text}
        if self.kind is OUTPUT_TEXT:
            value |= {"annotations": self.annotations, "logprobs": to_logprobs(self.logprobs)}
        return value


class Item:
    """An output item in progress. `tool` and `call_id` belong to calls, `seal` to reasoning."""

    __slots__ = ("_closed", "_seal", "call_id", "details", "id", "index", "parts", "status", "tool", "type")

    def __init__(
        self, type_: str, index: int, tool: ClientTool | None = None, call_id: str = "", seal: Seal | None = None
    ) -> None:
        self.type = type_
        self.id = new_id(ID_PREFIXES[type_])
        self.index = index
        self.tool = tool
        self.call_id = call_id
        self.status = "in_progress"
        self.parts: list[Part] = []
        self.details: list[Mapping[str, Any]] = []
        self._seal = seal
        self._closed: JSON | None = None

    def close(self, status: str) -> None:
        """End the item, which does not change any more."""
        self.status = status
        self._closed = self._build()

    def to_object(self) -> JSON:
        """Return the item as it is now."""
        return self._closed or self._build()

    def _build(self) -> JSON:
        value: JSON = {"id": self.id, "type": self.type, "status": self.status}
        if self.tool is not None:
            return value | self._call_fields(self.tool)
        if self.type == "message":
            return value | {"role": "assistant", "content": [part.to_object() for part in self.parts]}
        return value | self._reasoning_fields()

    def _call_fields(self, tool: ClientTool) -> JSON:
        part = self.parts[0]
        fields = {"call_id": self.call_id, "name": tool.name, part.kind.text_key: part.text if part.written else ""}
        return fields if tool.namespace is None else {**fields, "namespace": tool.namespace}

    def _reasoning_fields(self) -> JSON:
        parts = [part.to_object() for part in self.parts]
        fields: JSON = {"summary": [part for part in parts if part["type"] == SUMMARY_TEXT.name]}
        if content := [part for part in parts if part["type"] == REASONING_TEXT.name]:
            fields["content"] = content
        if self._seal is not None and self.status != "in_progress":
            fields["encrypted_content"] = self._seal("".join(part.text for part in self.parts), self.details)
        return fields


class Output:
    """The items of one answer. A subclass overrides the `on_` methods to report each change.

    A text ends the item before it. Calls stay open until the end of the answer, because some models write several at
    once.
    """

    def __init__(self, tools: ToolMap, reasoning: PartKind, seal: Seal | None, *, shows_logprobs: bool) -> None:
        self.items: list[Item] = []
        self.finish_reason: str | None = None
        self._tools = tools
        self._reasoning = reasoning
        self._seal = seal
        self._shows_logprobs = shows_logprobs
        self._part: Part | None = None
        self._calls: dict[int, Part] = {}

    def add(self, delta: ChatDelta) -> None:
        """Add a delta to the items."""
        if delta.reasoning:
            self._add_text(self._reasoning, delta.reasoning)
        if delta.reasoning_details and self._seal is not None:
            self._add_details(delta.reasoning_details)
        if delta.content:
            self._add_text(OUTPUT_TEXT, delta.content, delta.logprobs if self._shows_logprobs else ())
        if delta.refusal:
            self._add_text(REFUSAL, delta.refusal)
        for annotation in filter(None, map(to_annotation, delta.annotations)):
            self._add_annotation(annotation)
        for call in delta.tool_calls:
            self._add_call(call)
        self.finish_reason = delta.finish_reason or self.finish_reason

    def finish(self) -> None:
        """End all items. The last one of an answer that was cut by a limit is incomplete."""
        if not self.items:
            self._open_part(OUTPUT_TEXT)
        is_cut = self.finish_reason in INCOMPLETE_REASONS
        for item in [item for item in self.items if item.status == "in_progress"]:
            self._close_item(item, "incomplete" if is_cut and item is self.items[-1] else "completed")

    def to_objects(self) -> list[JSON]:
        """Return all items."""
        return [item.to_object() for item in self.items]

    def _add_text(self, kind: PartKind, text: str, logprobs: Sequence[TokenLogprob] = ()) -> None:
        part = self._part
        if part is None or part.kind is not kind:
            part = self._open_part(kind)
        part.written.add(text)
        if logprobs:
            part.logprobs.extend(logprobs)
        self.on_text(part, text, logprobs)

    def _add_details(self, details: Sequence[Mapping[str, Any]]) -> None:
        """Add what the model needs back, also to reasoning that has no text to show."""
        part = self._part
        if part is None or part.kind is not self._reasoning:
            part = self._open_part(self._reasoning)
        part.item.details.extend(details)

    def _add_annotation(self, annotation: Mapping[str, Any]) -> None:
        part = self._part
        if part is None or part.kind is not OUTPUT_TEXT:
            part = self._open_part(OUTPUT_TEXT)
        part.annotations.append(annotation)
        self.on_annotation(part, annotation)

    def _open_part(self, kind: PartKind) -> Part:
        before = self._part
        if before is not None and before.item.type == kind.item_type:
            self.on_part_done(before)
            item = before.item
        else:
            self._close_text()
            seal = self._seal if kind.item_type == "reasoning" else None
            item = self._open_item(Item(kind.item_type, len(self.items), seal=seal))
        self._part = part = Part(kind, item)
        self.on_part(part)
        return part

    def _open_item(self, item: Item) -> Item:
        self.items.append(item)
        self.on_item(item)
        return item

    def _close_text(self) -> None:
        if self._part is not None:
            self._close_item(self._part.item, "completed")

    def _close_item(self, item: Item, status: str) -> None:
        part = item.parts[-1]
        if part.kind is ARGUMENTS and status == "completed" and not part.written:
            self._add_arguments(part, NO_ARGUMENTS)
        self.on_part_done(part)
        item.close(status)
        self.on_item_done(item)
        if self._part is not None and self._part.item is item:
            self._part = None

    def _add_call(self, delta: ToolCallDelta) -> None:
        part = self._calls.get(delta.index) or self._open_call(delta)
        if delta.arguments:
            self._add_arguments(part, delta.arguments)

    def _add_arguments(self, part: Part, text: str) -> None:
        part.written.add(text)
        self.on_text(part, text, ())

    def _open_call(self, delta: ToolCallDelta) -> Part:
        self._close_text()
        tool = self._tools.find(delta.name or "")
        if delta.type == "custom":
            tool = ClientTool("custom", tool.name, tool.namespace)
        kind = INPUT if tool.kind == "custom" else ARGUMENTS
        item = Item(kind.item_type, len(self.items), tool, delta.id or new_id("call_"))
        part = self._calls[delta.index] = Part(kind, item, is_wrapped=kind is INPUT and delta.type == "function")
        self._open_item(item)
        return part

    def on_item(self, item: Item) -> None:
        """Handle the start of an item."""

    def on_part(self, part: Part) -> None:
        """Handle the start of a part of a message or of reasoning."""

    def on_text(self, part: Part, text: str, logprobs: Sequence[TokenLogprob]) -> None:
        """Handle a text that was added to a part."""

    def on_annotation(self, part: Part, annotation: Mapping[str, Any]) -> None:
        """Handle an annotation that was added to a part."""

    def on_part_done(self, part: Part) -> None:
        """Handle the end of a part."""

    def on_item_done(self, item: Item) -> None:
        """Handle the end of an item."""
