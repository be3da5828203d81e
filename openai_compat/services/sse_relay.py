"""An upstream's event stream on its way to the client: whole events only, watched for usage and for a proper end."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.backends.parsing.openai_chat import DONE_GRACE, read_usage
from openai_compat.core.errors import UpstreamInvalidResponseError, UpstreamTimeoutError, UpstreamTruncatedError
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import Usage

from .sse_events import DATA, DONE, parse_object, split_events

log = logging.getLogger(__name__)

MAX_EVENT_BYTES: Final = 64 * 1024 * 1024

_MARKS = (b"\n\n", b"\n\r\n", b"\r\r")
_DONE = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]")
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null')


class SSERelay:
    """Iterator over blocks of whole events, and `HEARTBEAT`; `close()` ends the upstream's work.

    The bytes are the upstream's, with three exceptions: an empty `error` is taken out of an event (clients take it for
    a failure), and where `strip_usage` is set, because it was this server that asked for usage, the usage is taken out
    and the chunk that carries nothing else is dropped. `usage` holds the last usage seen. Nothing follows an error;
    `has_failed` tells that there was one.

    An event is handed on when it is whole, so what follows a broken one can still be understood. One that is broken is
    dropped, as clients stop at it; that it is, is seen by its end, which costs less than parsing.

    Raises:
        UpstreamCutError: the stream ended without `[DONE]` and without a `finish_reason` for each of the `choices`, or
            in the middle of an event.
        UpstreamReplyError: the events that end the answer were broken.
        whatever reading the reply raises.
    """

    def __init__(self, reply: UpstreamResponse, *, strip_usage: bool, choices: int = 1) -> None:
        self.usage: Usage | None = None
        self._reply = reply
        self._blocks = reply.blocks()
        self._hides_usage = strip_usage
        self._choices = choices
        self._finished: set[int] = set()
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._is_done = self.has_failed = False
        self._is_complete = self._has_broken = False
        self._usual = EventTemplate()

    def __iter__(self) -> Iterator[bytes | Heartbeat]:
        return self

    def __next__(self) -> bytes | Heartbeat:
        while not (self._is_done or self.has_failed):
            try:
                block = next(self._blocks, None)
            except (UpstreamTimeoutError, UpstreamTruncatedError):
                if not self._is_complete:
                    raise
                return self._finish_without_done()
            if block is None:
                return self._last_events()
            if isinstance(block, Heartbeat):
                return block
            events = block if not self._pieces and block.endswith(b"\n\n") else self._whole_events(block)
            if events and (passed := self._inspected(events)):
                return passed
        raise StopIteration

    def _finish_without_done(self) -> bytes:
        log.info("the upstream's answer was whole, and had no end mark")
        self._is_done = True
        return DONE

    def close(self) -> None:
        if self._is_done or self.has_failed:
            self._reply.release()
        else:
            self._reply.close()

    def _whole_events(self, block: bytes) -> bytes:
        """The events that `block` completes; what is left over waits for the rest of its event.

        The end mark may lie across two blocks, so the last bytes of what waits are looked at again, and no more.
        """
        before = b"".join(piece[-3:] for piece in self._pieces[-3:])[-3:]
        seam = before + block
        end = max(seam.rfind(mark) + len(mark) if mark in seam else 0 for mark in _MARKS) - len(before)
        if end <= 0:
            self._hold(block)
            return b""
        events = b"".join([*self._pieces, block[:end]])
        self._pieces, self._held_bytes = [], 0
        if end < len(block):
            self._hold(block[end:])
        return events

    def _hold(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes > MAX_EVENT_BYTES:
            raise UpstreamInvalidResponseError("The upstream sent an event that is too large.")

    def _inspected(self, events: bytes) -> bytes:
        """`events` as the client is to see them. Most have nothing of note, and are known by their likeness."""
        kept = self._usual.match(events)
        return self._inspect(events) if kept is None else kept

    def _inspect(self, events: bytes) -> bytes:
        # `find`, not `in`, which for bytes raises and catches an exception within CPython.
        came = events
        # One event in one line, as nearly always, is looked at by its end alone.
        is_one = events.find(b"\n") == len(events) - 2 and events.endswith(b"}\n\n")
        if not is_one and events.count(b"\n\n") != events.count(b"}\n\n"):
            events = b"".join(event for event in split_events(events) if not self._is_broken(event))
        has_usage = events.find(b'"usage"') >= 0
        if has_usage and self._hides_usage:
            events = _NULL_USAGE.sub(b"", events)
        is_finish = len(self._finished) < self._choices and _FINISHED.search(events) is not None
        if is_finish or (has_usage and events.find(b'"prompt_tokens"') >= 0) or events.find(b'"error"') >= 0:
            events = b"".join(self._inspected_events(events))
            self._check_complete()
        elif is_one:
            self._usual.train(came, events)
        # With its last bracket, the search takes three times as long.
        if events.find(b"[DONE") >= 0 and _DONE.search(events):
            if self._has_broken and len(self._finished) < self._choices:
                raise UpstreamInvalidResponseError("The upstream's answer has a broken event in place of its end.")
            self._is_done = True
        return events

    def _is_broken(self, event: bytes) -> bool:
        """Whether the event's data is neither JSON nor the end mark. What has no data is nobody's business here."""
        data = b"\n".join(DATA.findall(event))
        if data in {b"", b"[DONE]"} or parse_object(data) is not None:
            return False
        self._has_broken = True
        log.warning("a broken event of the upstream's is left out: %.100r", data)
        return True

    def _check_complete(self) -> None:
        """After the last finish and the usage, nothing but the end mark is worth waiting for."""
        if not self._is_complete and self.usage is not None and len(self._finished) >= self._choices:
            self._is_complete = True
            self._reply.limit_remaining(DONE_GRACE)

    def _inspected_events(self, events: bytes) -> Iterator[bytes]:
        """One by one, up to an error: an end mark that a server sends after its error would make it look whole."""
        for event in split_events(events):
            yield self._inspected_event(event)
            if self.has_failed:
                return

    def _inspected_event(self, event: bytes) -> bytes:
        found = DATA.search(event)
        chunk = parse_object(found[1]) if found else None
        if found is None or chunk is None:
            return event
        if chunk.get("error"):
            self.has_failed = True
            log.warning("the upstream told of an error within its stream")
        self._note_finishes(chunk)
        dropped = {"error"} if "error" in chunk and not chunk["error"] else set()
        usage = read_usage(chunk.get("usage"))
        self.usage = usage or self.usage
        if self._hides_usage and usage is not None:
            if not chunk.get("choices"):
                return b""
            dropped.add("usage")
        if not dropped:
            return event
        return _replaced(event, found, {key: value for key, value in chunk.items() if key not in dropped})

    def _note_finishes(self, chunk: Mapping[str, Any]) -> None:
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("finish_reason"):
                self._finished.add(choice.get("index") or 0)

    def _last_events(self) -> bytes:
        """What the end of the body leaves: nothing, an end mark without its blank line, or proof of a cut."""
        rest = b"".join(self._pieces)
        self._pieces = []
        if rest.strip():
            rest = self._inspected(rest.rstrip() + b"\n\n")
            if not (self._is_done or self.has_failed):
                raise UpstreamTruncatedError("The upstream's stream broke off in the middle of an event.")
            return rest
        if len(self._finished) < self._choices:
            raise UpstreamTruncatedError("The upstream's stream ended before its answer was complete.")
        self._is_done = True
        return DONE


def _replaced(event: bytes, found: re.Match[bytes], chunk: Mapping[str, Any]) -> bytes:
    data = json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode()
    return event[: found.start(1)] + data + event[found.end(1) :]


MAX_SAMPLES: Final = 4
"""The first event has a role, a tool's call begins in its own way: so many shapes are tried for the usual one."""
MAX_TEMPLATE_BYTES: Final = 16_384
"""A larger event is not the usual one, and what is around its text is not kept."""
# Possessive: an ordinary repetition would keep a place to go back to for each character of a long text.
_TEXT: Final = re.compile(rb'"(?:content|text|reasoning_content|arguments)": ?"((?:[^"\\]++|\\.)*+)"')
_INSIDE_STRING: Final = re.compile(rb'(?:[^"\\\r\n]++|\\[^\r\n])*+')


class EventTemplate:
    """What the events of one stream have in common: each is the same but for its text.

    One that was inspected, and had nothing of note, shows what stands before the text and after it, and what may stay
    of that. Another that differs in nothing but a text within its quotes has nothing of note either.
    """

    __slots__ = ("_after", "_before", "_kept_after", "_lessons")

    def __init__(self) -> None:
        self._before = self._after = self._kept_after = b""
        self._lessons = 0

    def train(self, event: bytes, kept: bytes) -> None:
        """`event` is a single one that had nothing of note, `kept` what the client got of it."""
        if self._lessons == MAX_SAMPLES or len(event) > MAX_TEMPLATE_BYTES:
            return
        self._lessons += 1
        found = _TEXT.search(event)
        if found is not None and kept.startswith(event[: found.end(1)]):
            self._before, self._after = event[: found.start(1)], event[found.end(1) :]
            self._kept_after = kept[found.end(1) :]

    def match(self, event: bytes) -> bytes | None:
        """What the client gets of `event`; None for one that is not like the others."""
        start, end = len(self._before), len(event) - len(self._after)
        if not (event.endswith(self._after) and event.startswith(self._before) and start):
            return None
        if _INSIDE_STRING.fullmatch(event, start, end) is None:
            return None
        return event if self._kept_after == self._after else event[:end] + self._kept_after
