"""Single events of OpenAI's streams, as bytes and as parsed chunks."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Any, Final

from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import ChatDelta

from .event_stream import ChunkFilter

END_MARKS: Final = (b"\n\n", b"\n\r\n", b"\r\r")
"""Ends of an event, whose lines end with LF, CRLF or CR."""
EVENT_END: Final = re.compile(rb"\n\r?\n|\r\r")
DATA: Final = re.compile(rb"(?:^|[\r\n])data: ?([^\r\n]*)")
DONE: Final = b"data: [DONE]\n\n"
YIELD_EVERY: Final = 32
"""Events that are encoded before other greenlets get a turn: about a millisecond's work."""


def to_event(chunk: Mapping[str, Any]) -> bytes:
    """Return one `data:` event. Lone surrogates, which UTF-8 cannot encode, become question marks."""
    return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n\n"


def replace_data(event: bytes, chunk: Mapping[str, Any]) -> bytes:
    """Return the event with other data, and with its other lines if its data is in one line."""
    first, *others = DATA.finditer(event)
    if others:
        return to_event(chunk)
    data = json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return event[: first.start(1)] + data + event[first.end(1) :]


def encode_chunks(
    chunks: Iterator[dict[str, Any] | Heartbeat], chunk_filter: ChunkFilter | None = None
) -> Iterator[bytes | Heartbeat]:
    """Yield chunks as events, and `[DONE]` after the last one. After an error there is no `[DONE]`.

    Other greenlets get a turn after every `YIELD_EVERY` events, also where no chunk has to be waited for.
    """
    for count, chunk in enumerate(chunks, 1):
        if chunk is HEARTBEAT:
            yield chunk
        else:
            yield to_event(chunk if chunk_filter is None else chunk_filter(chunk))
        if not count % YIELD_EVERY:
            time.sleep(1e-9)  # with 0, gevent polls other clients' sockets only every 50th time
    yield DONE


def encode_deltas(
    deltas: Iterator[ChatDelta | Heartbeat], write: Callable[[ChatDelta], bytes], heartbeat_interval: float
) -> Iterator[bytes | Heartbeat]:
    """Yield the events that `write` makes of each delta, for protocols with events of their own.

    Deltas without an event, such as the arguments of a custom tool, count as idle time. Other greenlets get a turn
    after every `YIELD_EVERY` deltas, also where no delta has to be waited for.
    """
    silent_since: float | None = None
    for count, delta in enumerate(deltas, 1):
        if delta is HEARTBEAT:
            yield delta
            continue
        if events := write(delta):
            silent_since = None
            yield events
        elif silent_since is None:
            silent_since = monotonic()
        elif heartbeat_interval and monotonic() - silent_since >= heartbeat_interval:
            silent_since = None
            yield HEARTBEAT
        if not count % YIELD_EVERY:
            time.sleep(1e-9)  # with 0, gevent polls other clients' sockets only every 50th time


def split_events(events: bytes) -> Iterator[bytes]:
    """Yield each event with its end mark, and last what follows the last end mark."""
    at = 0
    for mark in EVENT_END.finditer(events):
        yield events[at : mark.end()]
        at = mark.end()
    if at < len(events):
        yield events[at:]


def choices_of(chunk: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the chunk's choices that are objects."""
    choices = chunk.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def has_content(chunk: Mapping[str, Any]) -> bool:
    """Return True if the chunk carries content or a finish reason, and not only a role or an empty text."""
    return any(choice.get("finish_reason") or choice.get("text") or _has_delta(choice) for choice in choices_of(chunk))


def _has_delta(choice: Mapping[str, Any]) -> bool:
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(value for name, value in delta.items() if name != "role")
