"""Line-by-line parser of event streams, as strict as the strictest client."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from openai_compat.core.types import JSON


@dataclass
class EventStream:
    """Contents of a complete event stream.

    `data` has the data of each event, `names` the values of the `event:` lines, and `other_lines` every other line that
    is not a comment. `rest` is the text after the last event.
    """

    data: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    other_lines: list[str] = field(default_factory=list)
    rest: str = ""

    @property
    def objects(self) -> list[JSON]:
        """The parsed JSON of every event except `[DONE]`."""
        return [json.loads(text) for text in self.data if text.strip() != "[DONE]"]

    def choices(self, index: int = 0) -> list[JSON]:
        """Return the choices with this index from all chunks."""
        return [
            choice for chunk in self.objects for choice in chunk.get("choices") or [] if choice.get("index", 0) == index
        ]


def parse_events(text: str) -> EventStream:
    """Parse a complete event stream."""
    *blocks, rest = text.replace("\r\n", "\n").split("\n\n")
    stream = EventStream(rest=rest)
    for block in blocks:
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        data = [line[5:].removeprefix(" ") for line in lines if line.startswith("data:")]
        if data:
            stream.data.append("\n".join(data))
        stream.names += [line[6:].strip() for line in lines if line.startswith("event:")]
        stream.other_lines += [line for line in lines if not line.startswith(("data:", "event:"))]
    return stream
