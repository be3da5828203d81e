"""Single events of OpenAI's streams, as bytes and as what they say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

EVENT_END: Final = re.compile(rb"\n\r?\n|\r\r")
DATA: Final = re.compile(rb"^data: ?([^\r\n]*)", re.MULTILINE)
DONE: Final = b"data: [DONE]\n\n"


def split_events(events: bytes) -> Iterator[bytes]:
    """Each event with its end; what follows the last end, too."""
    at = 0
    for mark in EVENT_END.finditer(events):
        yield events[at : mark.end()]
        at = mark.end()
    if at < len(events):
        yield events[at:]


def parse_object(data: bytes) -> dict[str, Any] | None:
    """The JSON object that `data` is; None where it is something else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def chunk_of(event: bytes) -> dict[str, Any] | None:
    """The chunk that an event carries in one line; None for comments, `[DONE]`, and what is broken."""
    found = DATA.search(event)
    return parse_object(found[1]) if found else None


def to_event(chunk: Mapping[str, Any]) -> bytes:
    """A chunk as an event."""
    return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n\n"


def choices_of(chunk: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A chunk's choices, whatever an upstream put in their place."""
    choices = chunk.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def has_content(chunk: Mapping[str, Any]) -> bool:
    """Whether a chunk has a piece of an answer or its end, and not only a role or an empty text."""
    return any(choice.get("finish_reason") or choice.get("text") or _has_piece(choice) for choice in choices_of(chunk))


def _has_piece(choice: Mapping[str, Any]) -> bool:
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(value for name, value in delta.items() if name != "role")
