"""A chat model's deltas as events of the Messages API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from json.encoder import encode_basestring
from typing import Final

from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import JSON, ChatDelta, Usage
from openai_compat.services.chat import ChatAnswer
from openai_compat.services.openai_objects import to_json
from openai_compat.services.sse_events import encode_deltas

from .blocks import Block, Content, ToolUseBlock
from .json_strings import ControlEscaper
from .objects import to_usage
from .tools import ToolMap

PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'
"""The protocol's keep-alive. Clients skip it, also before the first event."""


def to_ping() -> bytes:
    """Return what fills an idle gap."""
    return PING


def to_event(type_: str, fields: JSON) -> bytes:
    """Return one event. Both official clients skip events without a name (source: their stream parsers)."""
    return b"event: %b\ndata: %b\n\n" % (type_.encode(), to_json({"type": type_, **fields}))


class EventWriter(Content):
    """Writer of the events of one answer.

    Clients take one block after the other. The texts of a block that began before its predecessor was complete wait
    until then.
    """

    def __init__(self, tools: ToolMap, stop_sequences: Sequence[str] = ()) -> None:
        super().__init__(tools, stop_sequences)
        self.has_begun = False
        self._events: list[bytes] = []
        self._open_block: Block | None = None
        self._head = ""
        self._escaper: ControlEscaper | None = None

    def begin(self, message: JSON) -> bytes:
        """Return the first event."""
        self.has_begun = True
        return to_event("message_start", {"message": message})

    def write(self, delta: ChatDelta) -> bytes:
        """Return the events of a delta, which may be none."""
        self.add(delta)
        events = self._events
        if not events:
            return b""
        self._events = []
        return events[0] if len(events) == 1 else b"".join(events)

    def finish(self, usage: Usage) -> bytes:
        """Return the events of the end."""
        while self._open_block is not None:
            self._close_block()
        ending = {"delta": self.to_ending(), "usage": to_usage(usage)}
        return b"".join((*self._events, to_event("message_delta", ending), to_event("message_stop", {})))

    def on_block(self, block: Block) -> None:
        if self._open_block is None:
            self._start(block)
            return
        while self._open_block is not None and self._open_block is not block and self._open_block.is_complete:
            self._close_block()

    def on_text(self, block: Block, text: str) -> None:
        """Write a delta event, whose beginning is the same for all deltas of a block."""
        if block is self._open_block:
            if self._escaper is not None:
                text = self._escaper.escape(text)
            self._events.append(f"{self._head}{encode_basestring(text)}}}}}\n\n".encode("utf-8", "replace"))

    def on_signature(self, block: Block) -> None:
        if block is self._open_block:
            delta = {"type": "signature_delta", "signature": block.signature}
            self._events.append(to_event("content_block_delta", {"index": block.index, "delta": delta}))

    def _start(self, block: Block) -> None:
        """Write the start of a block, and what it has already."""
        self._open_block = block
        self._escaper = ControlEscaper() if isinstance(block, ToolUseBlock) else None
        start = {"index": block.index, "content_block": block.to_start()}
        self._events.append(to_event("content_block_start", start))
        self._head = (
            f'event: content_block_delta\ndata: {{"type":"content_block_delta","index":{block.index},'
            f'"delta":{{"type":"{block.delta_type}","{block.text_key}":'
        )
        if block.written:
            self.on_text(block, block.text)
        if block.signature:
            self.on_signature(block)

    def _close_block(self) -> None:
        """Write the end of the open block, and the start of the next one if there is one."""
        block = self._open_block
        assert block is not None  # noqa: S101 - the callers check it
        if isinstance(block, ToolUseBlock) and not block.written:
            self.on_text(block, "{}")  # without arguments, Claude Code takes the call for a broken one
        self._events.append(to_event("content_block_stop", {"index": block.index}))
        self._open_block = None
        if block.index + 1 < len(self.blocks):
            self._start(self.blocks[block.index + 1])


def encode_message(
    message: JSON,
    writer: EventWriter,
    answer: ChatAnswer,
    deltas: Iterator[ChatDelta | Heartbeat],
    heartbeat_interval: float,
) -> Iterator[bytes | Heartbeat]:
    """Yield the events of a message, which the writer may have begun already.

    `deltas` are the answer's. The usage of the first event is an estimate, unless the model reports its own at the
    beginning. After an error there is no `message_stop`.
    """
    if not writer.has_begun:
        deltas = chain((next(deltas),), deltas)
        if answer.usage is not None:
            message["usage"] = to_usage(answer.usage)
        yield writer.begin(message)
    yield from encode_deltas(deltas, writer.write, heartbeat_interval)
    yield writer.finish(answer.final_usage())
