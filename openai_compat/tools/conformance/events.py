"""Reading an event stream line by line, as the strictest client does."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

JSON = dict[str, Any]


@dataclass
class EventStream:
    """`data` has what each event carries, as text; `names` the `event:` lines, `others` every other line that is none
    of the standard's comments.
    """

    data: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    rest: str = ""

    @property
    def objects(self) -> list[JSON]:
        """The JSON of every event but the end mark."""
        return [json.loads(text) for text in self.data if text.strip() != "[DONE]"]

    def choices(self, index: int = 0) -> list[JSON]:
        """What every chunk says of one choice."""
        return [
            choice for chunk in self.objects for choice in chunk.get("choices") or [] if choice.get("index", 0) == index
        ]


def parse_events(text: str) -> EventStream:
    """The events of a whole stream."""
    *blocks, rest = text.replace("\r\n", "\n").split("\n\n")
    stream = EventStream(rest=rest)
    for block in blocks:
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        data = [line[5:].removeprefix(" ") for line in lines if line.startswith("data:")]
        if data:
            stream.data.append("\n".join(data))
        stream.names += [line[6:].strip() for line in lines if line.startswith("event:")]
        stream.others += [line for line in lines if not line.startswith(("data:", "event:"))]
    return stream
