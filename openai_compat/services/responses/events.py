"""A chat model's deltas as events of the Responses API."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any

from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import JSON, ChatDelta, TokenLogprob
from openai_compat.services.sse_events import encode_deltas

from .lifecycle import Lifecycle, to_json_text
from .objects import to_logprobs
from .output import INPUT, OUTPUT_TEXT, Item, Output, Part, PartKind, Seal
from .tools import ToolMap


class EventWriter(Output):
    """Writer of the events of one answer. It keeps the items, which the last event repeats."""

    def __init__(
        self, lifecycle: Lifecycle, tools: ToolMap, reasoning: PartKind, seal: Seal | None, *, shows_logprobs: bool
    ) -> None:
        super().__init__(tools, reasoning, seal, shows_logprobs=shows_logprobs)
        self._lifecycle = lifecycle
        self._events: list[bytes] = []
        self._framed: Part | None = None
        self._head = ""

    def write(self, delta: ChatDelta) -> bytes:
        """Return the events of a delta, which may be none."""
        self.add(delta)
        return self.take()

    def take(self) -> bytes:
        """Return the events since the last call."""
        events, self._events = self._events, []
        return events[0] if len(events) == 1 else b"".join(events)

    def on_item(self, item: Item) -> None:
        self._write("response.output_item.added", {"output_index": item.index, "item": item.to_object()})

    def on_part(self, part: Part) -> None:
        self._write(f"{part.kind.part_event}.added", {**_place_of(part), "part": part.to_object()})

    def on_text(self, part: Part, text: str, logprobs: Sequence[TokenLogprob]) -> None:
        """Write a delta event, whose beginning is the same for all deltas of a part."""
        if part.is_wrapped:
            return
        if part is not self._framed:
            self._frame(part)
        tail = "" if part.kind is not OUTPUT_TEXT else f',"logprobs":{to_json_text(to_logprobs(logprobs))}'
        number = self._lifecycle.next_number()
        event = f'{self._head}{encode_basestring(text)}{tail},"sequence_number":{number}}}\n\n'
        self._events.append(event.encode("utf-8", "replace"))

    def on_annotation(self, part: Part, annotation: Mapping[str, Any]) -> None:
        fields = {"annotation_index": len(part.annotations) - 1, "annotation": annotation}
        self._write("response.output_text.annotation.added", {**_place_of(part), **fields})

    def on_part_done(self, part: Part) -> None:
        kind, place, value = part.kind, _place_of(part), part.to_object()
        if kind is INPUT and part.is_wrapped:
            self._write(f"{kind.event}.delta", {**place, "delta": value[kind.text_key]})
        done = {kind.text_key: value[kind.text_key]}
        if kind is OUTPUT_TEXT:
            done["logprobs"] = value["logprobs"]
        self._write(f"{kind.event}.done", {**place, **done})
        if kind.part_event is not None:
            self._write(f"{kind.part_event}.done", {**place, "part": value})

    def on_item_done(self, item: Item) -> None:
        self._write("response.output_item.done", {"output_index": item.index, "item": item.to_object()})

    def _write(self, type_: str, fields: Mapping[str, Any]) -> None:
        self._events.append(self._lifecycle.event(type_, fields))

    def _frame(self, part: Part) -> None:
        """Prepare the beginning of a part's delta events."""
        self._framed = part
        type_ = f"{part.kind.event}.delta"
        place = to_json_text({"type": type_, **_place_of(part)})[:-1]
        self._head = f'event: {type_}\ndata: {place},"delta":'


def _place_of(part: Part) -> JSON:
    """Return the fields that say where a part is."""
    place: JSON = {"item_id": part.item.id, "output_index": part.item.index}
    if part.kind.index_key is not None:
        place[part.kind.index_key] = part.index
    return place


def encode_response(
    writer: EventWriter,
    lifecycle: Lifecycle,
    deltas: Iterator[ChatDelta | Heartbeat],
    finish: Callable[[], bytes],
    heartbeat_interval: float,
) -> Iterator[bytes | Heartbeat]:
    """Yield the events of an answer. `finish` returns the last event, and keeps the response first if it is stored."""
    if not lifecycle.has_begun:
        yield lifecycle.begin()  # in no variable, which would keep the tools of the request until the end
    yield from encode_deltas(deltas, writer.write, heartbeat_interval)
    writer.finish()
    yield writer.take()
    yield finish()
