"""The content blocks of a message, collected from a chat model's deltas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from openai_compat.core.large_json import parse_json
from openai_compat.core.text_buffer import TextBuffer
from openai_compat.core.types import JSON, ChatDelta, ToolCallDelta
from openai_compat.services.openai_objects import new_id

from .objects import Ending
from .tools import ToolMap

UNPARSED: Final = "__unparsedToolInput"
"""Key of arguments that are no JSON object, so that the tool's own check reports them to the model."""


class Block:
    """A content block. `written` is its text, its thinking or its arguments so far."""

    delta_type = ""
    text_key = ""

    def __init__(self, index: int) -> None:
        self.index = index
        self.written = TextBuffer()
        self.signature = ""

    @property
    def text(self) -> str:
        return str(self.written)

    @property
    def is_complete(self) -> bool:
        """True if nothing can follow once another block has begun."""
        return True

    def to_start(self) -> JSON:
        """Return the block as its start event has it."""
        raise NotImplementedError

    def to_object(self) -> JSON:
        """Return the complete block."""
        raise NotImplementedError


class TextBlock(Block):
    """A text of the answer, or a refusal."""

    delta_type, text_key = "text_delta", "text"

    def to_start(self) -> JSON:
        return {"type": "text", "text": ""}

    def to_object(self) -> JSON:
        return {"type": "text", "text": self.text}


class ThinkingBlock(Block):
    """What the model thought, with the signature by which it recognises its own thinking."""

    delta_type, text_key = "thinking_delta", "thinking"

    def to_start(self) -> JSON:
        return {"type": "thinking", "thinking": "", "signature": ""}

    def to_object(self) -> JSON:
        return {"type": "thinking", "thinking": self.text, "signature": self.signature}


class RedactedThinkingBlock(Block):
    """Encrypted thinking, which only the model can read."""

    def __init__(self, index: int, data: str) -> None:
        super().__init__(index)
        self._data = data

    def to_start(self) -> JSON:
        return {"type": "redacted_thinking", "data": self._data}

    def to_object(self) -> JSON:
        return self.to_start()


class ToolUseBlock(Block):
    """A call of a tool."""

    delta_type, text_key = "input_json_delta", "partial_json"

    def __init__(self, index: int, call_id: str, name: str) -> None:
        super().__init__(index)
        self._call_id = call_id
        self._name = name

    @property
    def is_complete(self) -> bool:
        """True if the arguments are complete. Some models write several calls at once."""
        return self._parse() is not None

    def to_start(self) -> JSON:
        return {"type": "tool_use", "id": self._call_id, "name": self._name, "input": {}}

    def to_object(self) -> JSON:
        text = self.text
        parsed = self._parse() if text.strip() else {}
        return {**self.to_start(), "input": {UNPARSED: text} if parsed is None else parsed}

    def _parse(self) -> JSON | None:
        """Return the arguments, or None if they are not a complete object."""
        text = self.text
        if not text.rstrip().endswith("}"):
            return None
        try:
            value = parse_json(text, strict=False)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None


def has_complete_thinking(delta: ChatDelta) -> bool:
    """Return True if the details of the reasoning have several signed texts, which the reasoning has as one."""
    return len(delta.reasoning_details) > 1 and sum("signature" in detail for detail in delta.reasoning_details) > 1


class Content:
    """The blocks of one answer. A subclass overrides the `on_` methods to report each change.

    Thinking, texts and calls are separate blocks, in the order in which they began.
    """

    def __init__(self, tools: ToolMap, stop_sequences: Sequence[str] = ()) -> None:
        self.blocks: list[Block] = []
        self.ending = Ending(stop_sequences)
        self._tools = tools
        self._last: Block | None = None
        self._calls: dict[int, ToolUseBlock] = {}

    def add(self, delta: ChatDelta) -> None:
        """Add a delta to the blocks."""
        if delta.reasoning and not has_complete_thinking(delta):
            self._add_text(ThinkingBlock, delta.reasoning)
        for detail in delta.reasoning_details:
            self._add_detail(detail)
        if delta.content:
            self._add_text(TextBlock, delta.content)
        if delta.refusal:
            self._add_text(TextBlock, delta.refusal)
        for call in delta.tool_calls:
            self._add_call(call)
        if delta.finish_reason or delta.stop_sequence or delta.refusal:
            self.ending.add(delta)

    def to_objects(self) -> list[JSON]:
        """Return all blocks."""
        return [block.to_object() for block in self.blocks]

    def to_ending(self) -> JSON:
        """Return the fields that say why the answer ended."""
        return self.ending.to_fields(tuple(self._calls))

    def _add_text(self, kind: type[Block], text: str) -> None:
        block = self._last
        if block is None or type(block) is not kind or block.signature:
            block = self._open(kind(len(self.blocks)))
        block.written.add(text)
        self.on_text(block, text)

    def _add_detail(self, detail: Mapping[str, Any]) -> None:
        """Add a signature to the thinking before it, or encrypted thinking as a block of its own."""
        data, signature = detail.get("data"), detail.get("signature")
        if isinstance(data, str) and data:
            self._open(RedactedThinkingBlock(len(self.blocks), data))
        elif isinstance(signature, str) and signature:
            block = self._unsigned_thinking() or self._open_signed(detail.get("text"))
            block.signature = signature
            self.on_signature(block)

    def _unsigned_thinking(self) -> Block | None:
        """Return the last thinking, if it has no signature yet."""
        last = next((block for block in reversed(self.blocks) if isinstance(block, ThinkingBlock)), None)
        return last if last is not None and not last.signature else None

    def _open_signed(self, text: Any) -> Block:
        """Open a block for thinking that arrives together with its signature."""
        block = self._open(ThinkingBlock(len(self.blocks)))
        if isinstance(text, str) and text:
            block.written.add(text)
            self.on_text(block, text)
        return block

    def _add_call(self, delta: ToolCallDelta) -> None:
        block = self._calls.get(delta.index)
        if block is None:
            call_id, name = delta.id or new_id("toolu_"), self._tools.find(delta.name or "")
            block = self._calls[delta.index] = ToolUseBlock(len(self.blocks), call_id, name)
            self._open(block)
        if delta.arguments:
            block.written.add(delta.arguments)
            self.on_text(block, delta.arguments)

    def _open(self, block: Block) -> Block:
        self.blocks.append(block)
        self._last = block
        self.on_block(block)
        return block

    def on_block(self, block: Block) -> None:
        """Handle a block that has begun."""

    def on_text(self, block: Block, text: str) -> None:
        """Handle a text that was added to a block."""

    def on_signature(self, block: Block) -> None:
        """Handle the signature of a block."""
