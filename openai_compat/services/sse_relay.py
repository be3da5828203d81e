"""SSE passthrough that validates events and observes the usage and the end of the answer."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Final

from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.backends.parsing.openai_chat import DONE_GRACE, read_usage
from openai_compat.backends.parsing.openai_errors import find_status, to_status_error
from openai_compat.core.errors import (
    UpstreamAuthenticationError,
    UpstreamError,
    UpstreamInvalidResponseError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
)
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import Usage

from .event_stream import ChunkFilter, EventStream
from .sse_events import DATA, DONE, has_content, parse_object, split_events, to_event

log = logging.getLogger(__name__)

MAX_EVENT_BYTES: Final = 64 * 1024 * 1024

_END_MARKS = (b"\n\n", b"\n\r\n", b"\r\r")
_DONE = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]")
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null')


class SSERelay(EventStream):
    """An upstream's event stream, relayed as bytes.

    Three things are changed. An empty `error` is removed from an event, because clients treat it as a failure. With
    `strip_usage`, set when this server asked for the usage, the usage is removed and a chunk that carries nothing else
    is dropped. Broken events are dropped, because clients stop at them.

    An event is parsed only if its bytes may hold something of note: the first ones, a finish reason, usage, an error,
    or data that does not end as JSON does. With `chunk_filter` each event is parsed and passed through it, and an error
    event is raised instead of relayed. No event is parsed twice.

    Raises (while iterating and in `prime`):
        UpstreamTruncatedError: the stream ended in the middle of an event, or without `[DONE]` and without a finish
            reason for each of the `choices`.
        UpstreamInvalidResponseError: the events that end the answer were broken.
        UpstreamError: the error event, with `chunk_filter`. Any error of reading the response.
    """

    def __init__(
        self,
        response: UpstreamResponse,
        *,
        strip_usage: bool,
        choices: int = 1,
        headers: Mapping[str, str] = {},
        chunk_filter: ChunkFilter | None = None,
    ) -> None:
        self.headers = headers
        self._usage: Usage | None = None
        self._response = response
        self._blocks = response.blocks()
        self._strip_usage = strip_usage
        self._choices = choices
        self._chunk_filter = chunk_filter
        self._finished: set[int] = set()
        self._fragments: list[bytes] = []
        self._fragment_bytes = 0
        self._primed: list[bytes] = []
        self._failure: UpstreamError | None = None
        self._has_content = self._is_done = self._is_complete = self._has_broken = False
        self._template = EventTemplate()

    @property
    def usage(self) -> Usage | None:
        return self._usage

    def prime(self) -> None:
        """Read up to the first event with content, and keep what was read for the iteration.

        Raises:
            UpstreamError: an error event came first, or the response could not be read.
        """
        while not self._has_content and (block := next(self, None)) is not None:
            if self._failure is not None and not self._has_content:
                raise self._failure
            if not isinstance(block, Heartbeat):
                self._primed.append(block)

    def __iter__(self) -> Iterator[bytes | Heartbeat]:
        if not self._primed:
            return self
        primed, self._primed = self._primed, []
        return chain(primed, self)

    def __next__(self) -> bytes | Heartbeat:
        while not (self._is_done or self._failure):
            try:
                block = next(self._blocks, None)
            except (UpstreamTimeoutError, UpstreamTruncatedError):
                if not self._is_complete:
                    raise
                return self._finish_without_done()
            if block is None:
                return self._finish()
            if isinstance(block, Heartbeat):
                return block
            events = block if not self._fragments and block.endswith(b"\n\n") else self._complete_events(block)
            if events and (kept := self._filter(events)):
                return kept
        if self._failure is not None and self._chunk_filter is not None:
            raise self._failure
        raise StopIteration

    def close(self) -> None:
        if self._is_done or self.has_failed:
            self._response.release()
        else:
            self._response.close()

    def _complete_events(self, block: bytes) -> bytes:
        """Return the events that `block` completes. The rest waits for the next block.

        An end mark may be split over two blocks, so the last three bytes that wait are searched again, and no more.
        """
        before = b"".join(fragment[-3:] for fragment in self._fragments[-3:])[-3:]
        seam = before + block
        end = max(seam.rfind(mark) + len(mark) if mark in seam else 0 for mark in _END_MARKS) - len(before)
        if end <= 0:
            self._keep(block)
            return b""
        events = b"".join([*self._fragments, block[:end]])
        self._fragments, self._fragment_bytes = [], 0
        if end < len(block):
            self._keep(block[end:])
        return events

    def _keep(self, fragment: bytes) -> None:
        self._fragments.append(fragment)
        self._fragment_bytes += len(fragment)
        if self._fragment_bytes > MAX_EVENT_BYTES:
            raise UpstreamInvalidResponseError("The upstream sent an event that is too large.")

    def _filter(self, events: bytes) -> bytes:
        """Return what the client gets of `events`. Most match the template and need no inspection."""
        kept = self._template.match(events)
        return self._inspect(events) if kept is None else kept

    def _inspect(self, events: bytes) -> bytes:
        # `find`, not `in`: for bytes, `in` raises and catches an exception within CPython.
        received = events
        # One event in one line, as nearly always, is judged by its end alone.
        is_one = events.find(b"\n") == len(events) - 2 and events.endswith(b"}\n\n")
        has_usage = events.find(b'"usage"') >= 0
        if has_usage and self._strip_usage:
            events = _NULL_USAGE.sub(b"", events)
        if (
            not self._has_content
            or self._chunk_filter is not None
            or (has_usage and events.find(b'"prompt_tokens"') >= 0)
            or events.find(b'"error"') >= 0
            or (len(self._finished) < self._choices and _FINISHED.search(events) is not None)
            or (not is_one and events.count(b"\n\n") != events.count(b"}\n\n"))
        ):
            events = b"".join(self._parse_events(events))
            self._check_complete()
        elif is_one:
            self._template.train(received, events)
        # With its closing bracket, the search takes three times as long.
        if events.find(b"[DONE") >= 0 and _DONE.search(events):
            if self._has_broken and len(self._finished) < self._choices:
                raise UpstreamInvalidResponseError("The upstream's answer has a broken event in place of its end.")
            self._is_done = True
        return events

    def _parse_events(self, events: bytes) -> Iterator[bytes]:
        """Yield the events up to an error. A `[DONE]` after an error would make the answer look complete."""
        for event in split_events(events):
            yield self._parse_event(event)
            if self._failure is not None:
                return

    def _parse_event(self, event: bytes) -> bytes:
        """Return what the client gets of one event."""
        lines = DATA.findall(event)
        data = b"\n".join(lines)
        if data in {b"", b"[DONE]"}:
            return event
        chunk = parse_object(data)
        if chunk is None:
            self._has_broken = True
            log.warning("dropped a broken event of the upstream: %.100r", data)
            return b""
        kept = self._observe(chunk)
        if kept is chunk:
            return event
        return _replace_data(event, kept, is_single_line=len(lines) == 1) if kept is not None else b""

    def _observe(self, chunk: dict[str, Any]) -> dict[str, Any] | None:
        """Record what the chunk reports. Return what the client gets of it, `chunk` itself if nothing changes."""
        if chunk.get("error"):
            self._failure = to_error(chunk)
            log.warning("the upstream sent an error within its stream")
            if self._chunk_filter is not None:
                return None
            self.has_failed = True
        self._has_content = self._has_content or has_content(chunk)
        self._record_finishes(chunk)
        dropped = {"error"} if "error" in chunk and not chunk["error"] else set()
        usage = read_usage(chunk.get("usage"))
        self._usage = usage or self._usage
        if self._strip_usage and usage is not None:
            if not chunk.get("choices"):
                return None
            dropped.add("usage")
        kept = {key: value for key, value in chunk.items() if key not in dropped} if dropped else chunk
        return kept if self._chunk_filter is None else self._chunk_filter(kept)

    def _record_finishes(self, chunk: Mapping[str, Any]) -> None:
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("finish_reason"):
                self._finished.add(choice.get("index") or 0)

    def _check_complete(self) -> None:
        """Limit the wait for `[DONE]` once every choice has finished and the usage is known."""
        if not self._is_complete and self._usage is not None and len(self._finished) >= self._choices:
            self._is_complete = True
            self._response.limit_remaining(DONE_GRACE)

    def _finish(self) -> bytes:
        """Return what the end of the body completes. Raise if the answer was cut."""
        rest = b"".join(self._fragments)
        self._fragments = []
        if rest.strip():
            kept = self._filter(rest.rstrip() + b"\n\n")
            if not (self._is_done or self._failure):
                raise UpstreamTruncatedError("The upstream's stream broke off in the middle of an event.")
            return kept
        if len(self._finished) < self._choices:
            raise UpstreamTruncatedError("The upstream's stream ended before its answer was complete.")
        return self._finish_without_done()

    def _finish_without_done(self) -> bytes:
        log.info("the upstream's answer was complete but had no end mark")
        self._is_done = True
        return DONE


def to_error(chunk: dict[str, Any]) -> UpstreamError:
    """Return the error that an event carries. One about this server's credential never shows the upstream's words."""
    status = find_status(chunk)
    if status in {401, 403}:
        return UpstreamAuthenticationError("The upstream refused the credential that this server holds for it.")
    return to_status_error(status, json.dumps(chunk).encode())


def _replace_data(event: bytes, chunk: Mapping[str, Any], *, is_single_line: bool) -> bytes:
    """Return the event with other data, and with its other lines where the data is in one line."""
    found = DATA.search(event) if is_single_line else None
    if found is None:
        return to_event(chunk)
    data = json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return event[: found.start(1)] + data + event[found.end(1) :]


MAX_SAMPLES: Final = 4
"""Events tried as the template: the first carries a role, and a tool call starts with a shape of its own."""
MAX_TEMPLATE_BYTES: Final = 16_384
"""Larger events are not typical and would keep large buffers alive."""
# Possessive: an ordinary repetition would keep a backtracking state for each character of a long text.
_TEXT: Final = re.compile(rb'"(?:content|text|reasoning_content|arguments)": ?"((?:[^"\\]++|\\.)*+)"')
_INSIDE_STRING: Final = re.compile(rb'(?:[^"\\\r\n]++|\\[^\r\n])*+')


class EventTemplate:
    """The bytes around the text of a stream's typical event.

    An inspected event with nothing of note is a sample: it shows the bytes before and after the text, and what the
    client gets of the latter. An event that differs from it only within the quoted text has nothing of note either.
    """

    __slots__ = ("_after", "_before", "_kept_after", "_samples")

    def __init__(self) -> None:
        self._before = self._after = self._kept_after = b""
        self._samples = 0

    def train(self, event: bytes, kept: bytes) -> None:
        """Use `event`, a single one with nothing of note, as the template. `kept` is what the client got of it."""
        if self._samples == MAX_SAMPLES or len(event) > MAX_TEMPLATE_BYTES:
            return
        self._samples += 1
        found = _TEXT.search(event)
        if found is not None and kept.startswith(event[: found.end(1)]):
            self._before, self._after = event[: found.start(1)], event[found.end(1) :]
            self._kept_after = kept[found.end(1) :]

    def match(self, event: bytes) -> bytes | None:
        """Return what the client gets of `event`, or None if it does not match."""
        start, end = len(self._before), len(event) - len(self._after)
        if not (event.endswith(self._after) and event.startswith(self._before) and start):
            return None
        if _INSIDE_STRING.fullmatch(event, start, end) is None:
            return None
        return event if self._kept_after == self._after else event[:end] + self._kept_after
