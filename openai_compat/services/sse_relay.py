"""SSE passthrough that validates events and observes the usage and the end of the answer."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, Final

from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.backends.parsing.answer_format import CARRIES_CONTENT
from openai_compat.backends.parsing.json_check import STRING, has_non_finite, is_utf8, parse_repaired
from openai_compat.backends.parsing.openai_chat import DONE_GRACE, read_usage
from openai_compat.backends.parsing.openai_errors import is_error_answer, to_error_chunk
from openai_compat.backends.parsing.sse import BYTE_ORDER_MARK
from openai_compat.core.errors import (
    UpstreamAuthenticationError,
    UpstreamError,
    UpstreamInvalidResponseError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
)
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import Usage

from .empty_finish_reasons import EmptyFinishReasons
from .event_stream import JSON, ChunkFilter, EventStream
from .event_template import MAX_SAMPLES, EventTemplate
from .sse_events import DATA, DONE, END_MARKS, choices_of, has_content, replace_data, split_events, to_event
from .surrogates import ESCAPED_SURROGATE, SurrogateJoiner
from .tool_call_repair import ToolCallRepair

log = logging.getLogger(__name__)

MAX_EVENT_BYTES: Final = 64 * 1024 * 1024

_EVENT_NAME = re.compile(rb"(?:^|[\r\n])event: ?([^\r\n]*)")
_ERROR_FIELD = re.compile(rb"(?:^|[\r\n])error: ?([^\r\n]*)")
_HAS_FIELD = re.compile(rb"(?:^|[\r\n])(?:event|error|id|retry)?:")
_STRING = re.compile(STRING)
_FRAME_KEYS = frozenset({"id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier"})
_TOOL_CALLS = b'"tool_calls"'
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null')


class SSERelay(EventStream):
    """An upstream's event stream, relayed as bytes.

    The bytes are changed where clients would misread them. An empty `error` is removed from an event. With
    `strip_usage`, set when this server asked for the usage, the usage is removed and a chunk that carries nothing else
    is dropped. An error of another shape is put into OpenAI's envelope. A character that is split into surrogate halves
    over two events is sent with the second. `NaN` becomes `LOWEST_LOGPROB`. A finish reason that is empty becomes null,
    and `stop` at the end. A broken event without content is dropped.

    An event is parsed only if its bytes may hold something of note: the first ones, a finish reason, usage, an error,
    an event name, a surrogate, or a shape (the bytes without the strings) that no parsed event had. With `chunk_filter`
    each event is parsed and passed through it, and an error event is raised instead of relayed. No event is parsed
    twice.

    Raises (while iterating and in `prime`):
        UpstreamTruncatedError: the stream ended in the middle of an event, or without `[DONE]` and without a finish
            reason for each of the `choices`.
        UpstreamInvalidResponseError: an event with content was broken, or the stream has no content at all.
        UpstreamError: the error event, with `chunk_filter`. Any error of reading the response.
    """

    def __init__(
        self,
        response: UpstreamResponse,
        *,
        strip_usage: bool,
        choices: int = 1,
        headers: Mapping[str, str] = {},
        to_error: Callable[[JSON], UpstreamError],
        chunk_filter: ChunkFilter | None = None,
    ) -> None:
        self.headers = headers
        self._usage: Usage | None = None
        self._response = response
        self._blocks = response.blocks()
        self._strip_usage = strip_usage
        self._choices = choices
        self._chunk_filter = chunk_filter
        self._to_error = to_error
        self._shapes: set[bytes] = set()
        self._surrogates = SurrogateJoiner()
        self._tool_calls: ToolCallRepair | None = None
        self._empty_reasons: EmptyFinishReasons | None = None
        self._finished: set[int] = set()
        self._fragments: list[bytes] = []
        self._fragment_bytes = 0
        self._primed: list[bytes] = []
        self.failure: UpstreamError | None = None
        self._has_content = self._is_done = self._is_complete = False
        self._has_broken = self._is_at_end = self._has_deltas = False
        self._template = EventTemplate()

    @property
    def usage(self) -> Usage | None:
        return self._usage

    def prime(self) -> None:
        """Read up to the first event with content, and keep what was read for the iteration.

        Raises:
            UpstreamError: an error event came first, or the response could not be read.
        """
        while not self._has_content:
            block = next(self, None)
            if self.failure is not None and not self._has_content:
                raise self.failure
            if block is None or (self._is_done and not self._has_content):
                raise UpstreamInvalidResponseError("The upstream's stream has no content.")
            if block is not HEARTBEAT:
                self._primed.append(block)

    def __iter__(self) -> Iterator[bytes | Heartbeat]:
        if not self._primed:
            return self
        primed, self._primed = self._primed, []
        return chain(primed, self)

    def __next__(self) -> bytes | Heartbeat:
        while not (self._is_done or self.failure):
            try:
                block = next(self._blocks, None)
            except (UpstreamTimeoutError, UpstreamTruncatedError):
                if not self._is_complete:
                    raise
                return self._finish_without_done()
            if block is None:
                return self._finish()
            if block is HEARTBEAT:
                return block
            events = block if not self._fragments and block.endswith(b"\n\n") else self._complete_events(block)
            if events and (kept := self._filter(events)):
                return kept
        if self.failure is not None and self._chunk_filter is not None:
            raise self.failure
        raise StopIteration

    def close(self) -> None:
        if self._is_done or self.failure is not None:
            self._response.release()
        else:
            self._response.close()

    def _complete_events(self, block: bytes) -> bytes:
        """Return the events that `block` completes. The rest waits for the next block.

        An end mark may be split over two blocks, so the last three bytes that wait are searched again, and no more.
        """
        before = b"".join(fragment[-3:] for fragment in self._fragments[-3:])[-3:]
        seam = before + block
        end = max(seam.rfind(mark) + len(mark) if mark in seam else 0 for mark in END_MARKS) - len(before)
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
        """Return what the client gets of `events`. Most are a single one that matches the template."""
        kept = self._template.match(events)
        if kept is not None:
            return kept
        if events.find(b"\n\n") == len(events) - 2:
            kept = self._inspect(events)
        else:
            kept = b"".join(self._filter_each(events))
        self._check_complete()
        return kept

    def _filter_each(self, events: bytes) -> Iterator[bytes]:
        """Yield what the client gets of several events, up to an error or `[DONE]`.

        What follows an error is dropped. With a `[DONE]` after its error an answer would look complete.
        """
        for event in split_events(events):
            kept = self._template.match(event)
            yield self._inspect(event) if kept is None else kept
            if self.failure is not None or self._is_done:
                return

    def _inspect(self, event: bytes) -> bytes:
        """Return what the client gets of one event, parsed if its bytes may hold something of note."""
        # `find`, not `in`: for bytes, `in` raises and catches an exception within CPython.
        if not self._has_content:
            event = event.removeprefix(BYTE_ORDER_MARK)
        received = event
        has_usage = event.find(b'"usage"') >= 0
        if has_usage and self._strip_usage:
            event = _NULL_USAGE.sub(b"", event)
        if (
            not self._has_content
            or self._chunk_filter is not None
            or (has_usage and event.find(b'"prompt_tokens"') >= 0)
            or event.find(b'rror"') >= 0
            or len(self._finished) >= self._choices
            or self._surrogates
            or _FINISHED.search(event) is not None
            or ESCAPED_SURROGATE.search(event) is not None
            or has_non_finite(event)
        ):
            return self._parse_event(event)
        shape = _STRING.sub(b"0", event)
        if shape not in self._shapes or not is_utf8(event):
            kept = self._parse_event(event)
            if self._tool_calls is not None and event.find(_TOOL_CALLS) >= 0:
                # Each one is parsed, unless it differs in its text alone from a part of a call's arguments.
                is_part = event.find(b'"id"', event.find(_TOOL_CALLS)) < 0
                if is_part and kept == event and self._tool_calls.is_exact:
                    self._template.train(received, event)
                return kept
            if kept != event or len(self._shapes) >= MAX_SAMPLES:
                return kept
            self._shapes.add(shape)
        self._template.train(received, event)
        return event

    def _parse_event(self, event: bytes) -> bytes:
        """Return what the client gets of one event."""
        if event.startswith(b"data:") and event.find(b"\n") == len(event) - 2:
            return self._parse_data(event, [event[5:-2].removeprefix(b" ")])
        lines = DATA.findall(event)
        if not lines and _HAS_FIELD.search(event) is None:
            return self._parse_stray(event) if event.strip() else event
        name = _EVENT_NAME.search(event)
        if name is not None and name[1] == b"error":
            self._fail(to_error_chunk(b"\n".join(lines).decode("utf-8", "replace")))
        elif (field := _ERROR_FIELD.search(event)) is not None:
            self._fail(to_error_chunk(field[1].decode("utf-8", "replace")))
        else:
            return self._parse_data(event, lines)
        return self._error_event(event) if self._chunk_filter is None else b""

    def _parse_stray(self, text: bytes) -> bytes:
        """Return what the client gets of text that is no event. Some servers send an error so, as a body of its own."""
        chunk = _parse_chunk(text)
        if chunk is None or not is_error_answer(chunk):
            return self._drop(text)
        self._fail(chunk)
        return self._error_event(text) if self._chunk_filter is None else b""

    def _parse_data(self, event: bytes, lines: list[bytes]) -> bytes:
        data = lines[0] if len(lines) == 1 else b"\n".join(lines)
        if data == b"[DONE]":
            if self._has_broken and len(self._finished) < self._choices:
                raise UpstreamInvalidResponseError("The upstream's answer has a broken event in place of its end.")
            self._is_done = True
            return event if self._empty_reasons is None else self._end_choices(self._empty_reasons) + event
        if not data.strip():
            return self._drop(event) if CARRIES_CONTENT.search(event) is not None else event
        if (chunk := _parse_chunk(data)) is not None:
            return self._relay_chunk(event, chunk)
        if len(lines) > 1:  # events without an empty line between them
            return b"".join(self._filter_each(b"".join(b"data: " + line + b"\n\n" for line in lines)))
        return self._drop(event)

    def _end_choices(self, reasons: EmptyFinishReasons) -> bytes:
        """Return the event with the finish reasons that the upstream left empty."""
        chunk = reasons.to_end(self._finished)
        if chunk is None:
            return b""
        kept = self._observe(chunk if self._tool_calls is None else self._tool_calls.repair(chunk))
        return to_event(kept) if kept is not None else b""

    def _drop(self, event: bytes) -> bytes:
        """Drop a broken event.

        Raises:
            UpstreamInvalidResponseError: it may have carried content, so that the answer would be altered.
            UpstreamTruncatedError: it is the last one, without its end.
        """
        if self._is_at_end:
            raise UpstreamTruncatedError("The upstream's stream broke off in the middle of an event.")
        self._has_broken = True
        if CARRIES_CONTENT.search(event) is not None:
            raise UpstreamInvalidResponseError("The upstream sent a broken event that carried content.")
        log.warning("dropped a broken event of the upstream: %.100r", self._response.redact(event))
        return b""

    def _relay_chunk(self, event: bytes, chunk: JSON) -> bytes:
        is_changed = has_non_finite(event)
        if self._surrogates or ESCAPED_SURROGATE.search(event) is not None:
            joined = self._surrogates.join(chunk)
            chunk, is_changed = joined, is_changed or joined is not chunk
        if self._tool_calls is not None or event.find(_TOOL_CALLS) >= 0:
            if self._tool_calls is None:
                self._tool_calls = ToolCallRepair()
            repaired = self._tool_calls.repair(chunk)
            chunk, is_changed = repaired, is_changed or repaired is not chunk
            if not self._tool_calls.is_exact:
                self._template = EventTemplate()
        kept = self._observe(chunk)
        if self.failure is not None:
            return b"" if self._chunk_filter is not None else self._error_event(event, chunk)
        if kept is chunk and not is_changed:
            return event
        return replace_data(event, kept) if kept is not None else b""

    def _fail(self, chunk: JSON) -> None:
        self.failure = self._to_error(chunk)
        log.warning("the upstream sent an error within its stream")

    def _error_event(self, event: bytes, chunk: JSON | None = None) -> bytes:
        """Return the event that clients recognise as an error, the upstream's own if it is one."""
        is_envelope = chunk is not None and isinstance(chunk.get("error"), dict)
        if is_envelope and not isinstance(self.failure, UpstreamAuthenticationError):
            return self._response.redact(event)
        assert self.failure is not None  # noqa: S101 - set by the caller
        return to_event(self.failure.to_envelope())

    def _observe(self, chunk: JSON) -> JSON | None:
        """Record what the chunk reports. Return what the client gets of it, `chunk` itself if nothing changes."""
        if is_error_answer(chunk):
            self._fail(chunk)
            return None
        if not self._has_deltas:
            self._has_deltas = has_content(chunk)
            chunk = _with_deltas(chunk)
        was_finished = len(self._finished) >= self._choices
        if not self._has_content:
            self._has_content = has_content(chunk)
        if self._record_finishes(chunk):
            self._empty_reasons = self._empty_reasons or EmptyFinishReasons()
            chunk = self._empty_reasons.replace(chunk)
        dropped = {"error"} if "error" in chunk and not chunk["error"] else set()
        usage = read_usage(chunk.get("usage"))
        self._usage = usage or self._usage
        if self._strip_usage and usage is not None:
            if not chunk.get("choices"):
                return None
            dropped.add("usage")
        if was_finished and self._strip_usage and chunk.get("choices") == [] and chunk.keys() <= _FRAME_KEYS:
            return None  # what some servers send after a usage that stood beside the finish reason
        kept = {key: value for key, value in chunk.items() if key not in dropped} if dropped else chunk
        return kept if self._chunk_filter is None else self._chunk_filter(kept)

    def _record_finishes(self, chunk: Mapping[str, Any]) -> bool:
        """Record the choices that have ended. Return True if a finish reason is an empty string."""
        choices = chunk.get("choices")
        has_empty = False
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            index = choice.get("index") or 0
            if not isinstance(index, int):
                raise UpstreamInvalidResponseError("The upstream sent a choice whose index is no number.")
            if (reason := choice.get("finish_reason")) is not None:
                if reason:
                    self._finished.add(index)
                elif reason == "":
                    has_empty = True
        return has_empty

    def _check_complete(self) -> None:
        """Limit the wait for `[DONE]`, or for anything else, once every choice has finished and the usage is known."""
        if self._usage is not None and len(self._finished) >= self._choices:
            self._is_complete = True
            self._template = EventTemplate()  # what follows all the same begins another wait
            self._response.limit_remaining(DONE_GRACE)

    def _finish(self) -> bytes:
        """Return what the end of the body completes. Raise if the answer was cut."""
        rest = b"".join(self._fragments)
        self._fragments = []
        self._is_at_end = True
        if rest.strip():
            kept = b"".join(self._filter_each(rest.rstrip() + b"\n\n"))
            if self._is_done or self.failure:
                return kept
            if len(self._finished) < self._choices:
                raise UpstreamTruncatedError("The upstream's stream broke off in the middle of an event.")
            return kept + self._finish_without_done()
        if len(self._finished) < self._choices:
            raise UpstreamTruncatedError("The upstream's stream ended before its answer was complete.")
        return self._finish_without_done()

    def _finish_without_done(self) -> bytes:
        log.info("the upstream's answer was complete but had no end mark")
        self._is_done = True
        return DONE


def _parse_chunk(data: bytes) -> JSON | None:
    """Return the JSON object, with `LOWEST_LOGPROB` in place of `NaN` and `Infinity`, or None if it is broken."""
    try:
        value = parse_repaired(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _with_deltas(chunk: JSON) -> JSON:
    """Return the chunk with a `delta` in each choice that has a `message` in its place.

    Some servers send the whole message at the end of a stream of deltas, where clients ignore it.
    """
    choices = choices_of(chunk)
    if not any("message" in choice and "delta" not in choice for choice in choices):
        return chunk
    return {**chunk, "choices": [{"delta": choice.get("message"), **choice} for choice in choices]}
