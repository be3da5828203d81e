"""Stored events of a background response, followed while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import Usage
from openai_compat.services.event_stream import EventStream

POLL_INTERVAL: Final = 0.1
PAGE: Final = 200
"""Events that are read at once."""

ReadEvents = Callable[[int, int], "list[tuple[int, str]] | None"]
"""Return up to so many events after a sequence number, or None if the response was deleted."""


class StoredEvents(EventStream):
    """Replay of a background response's stored events, which waits for new ones until the response ends.

    It begins behind the sequence number `after`. Any worker may run the response.
    """

    def __init__(
        self,
        read: ReadEvents,
        is_active: Callable[[], bool],
        after: int,
        cancellation: CancellationToken,
        heartbeat_interval: float,
    ) -> None:
        self._read = read
        self._is_active = is_active
        self._last = after
        self._cancellation = cancellation
        self._heartbeat_interval = heartbeat_interval

    @property
    def usage(self) -> Usage | None:
        return None

    def __iter__(self) -> Iterator[bytes | Heartbeat]:
        silent_since = time.monotonic()
        while True:
            is_active = self._is_active()  # asked first, as the last events are stored together with the end
            events = self._read(self._last, PAGE)
            if events:
                self._last = events[-1][0]
                silent_since = time.monotonic()
                yield "".join(event for _, event in events).encode()
                continue
            if events is None or not is_active:
                return
            if self._heartbeat_interval and time.monotonic() - silent_since >= self._heartbeat_interval:
                silent_since = time.monotonic()
                yield HEARTBEAT
            self._cancellation.wait(POLL_INTERVAL)

    def close(self) -> None:
        """Do nothing, as the response goes on."""
