"""Base of the relays of streams whose events have names, and the joining of blocks into events."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from itertools import chain

from openai_compat.backends.parsing.sse import BYTE_ORDER_MARK
from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.streams import HEARTBEAT, Heartbeat

from .event_stream import EventStream
from .sse_events import END_MARKS
from .sse_relay import MAX_EVENT_BYTES


class PrimedRelay(EventStream, Iterator[bytes | Heartbeat]):
    """A relay that reads the beginning of its stream before the response starts.

    A subclass sets `_has_content` with the first event that tells more than the start.
    """

    def __init__(self) -> None:
        self._primed: list[bytes] = []
        self._has_content = False

    @abstractmethod
    def __next__(self) -> bytes | Heartbeat: ...

    def prime(self) -> None:
        """Read up to the first event that tells more than the start, so that an error before it can have a status.

        Raises:
            UpstreamError: an error came first, or the response could not be read.
        """
        while not self._has_content:
            block = next(self, None)
            if block is None:
                raise UpstreamInvalidResponseError("The upstream's stream has no content.")
            if block is not HEARTBEAT:
                self._primed.append(block)

    def __iter__(self) -> Iterator[bytes | Heartbeat]:
        if not self._primed:  # `chain` calls this method again
            return self
        primed, self._primed = self._primed, []
        return chain(primed, self)


class EventJoiner:
    """Joiner of blocks into complete events."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._has_begun = False

    def feed(self, block: bytes) -> bytes:
        """Return the events that the block completes, and keep the rest.

        Raises:
            UpstreamInvalidResponseError: an event is larger than `MAX_EVENT_BYTES`.
        """
        if not self._has_begun:
            self._has_begun, block = True, block.removeprefix(BYTE_ORDER_MARK)
        if not self._pending and block.endswith(b"\n\n"):
            return block
        searched = max(0, len(self._pending) - 3)
        self._pending += block
        if len(self._pending) > MAX_EVENT_BYTES:
            raise UpstreamInvalidResponseError("The upstream sent an event that is too large.")
        at = (self._pending.rfind(mark, searched) + len(mark) for mark in END_MARKS if mark in self._pending[searched:])
        end = max(at, default=0)
        events = bytes(self._pending[:end])
        del self._pending[:end]
        return events

    def rest(self) -> bytes:
        """Return what followed the last complete event."""
        return bytes(self._pending)
