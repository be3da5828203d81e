"""Recorder of calls, from the end of each to the database."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from itertools import islice
from secrets import token_hex
from typing import Any, Final

from openai_compat.accounts.price_book import PriceBook
from openai_compat.core.errors import StorageUnavailableError
from openai_compat.core.observation import EndedRequest
from openai_compat.core.turns import TimeSlices
from openai_compat.storage import Storage
from openai_compat.storage.native_thread import NativeThread

from .rows import is_logged, to_bodies, to_row

log = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 1.0
BATCH: Final = 200
"""Calls stored in one transaction, which other writers wait for, and which takes PostgreSQL's driver a few ms."""
SLICE_SECONDS: Final = 0.002
"""Time of making rows after which the streams of the worker get a turn."""
MAX_QUEUED: Final = 10_000
"""Calls of a worker that wait for a database that is away. They take about 10 MB."""
MAX_QUEUED_WITH_BODIES: Final = 1000
DELETION_SECONDS: Final = 600.0
"""Time between two deletions of old sums."""


class CallRecorder:
    """Bounded queue of ended calls, which one thread (under gevent, a greenlet) of each process stores every second.

    A call costs a few microseconds when it ends. Its row is made and stored later, many at once.
    """

    def __init__(self, storage: Storage, prices: PriceBook, size: int, *, keeps_bodies: bool) -> None:
        """Keep the latest `size` calls."""
        self._storage = storage
        self._prices = prices
        self._size = size
        self._capacity = MAX_QUEUED_WITH_BODIES if keeps_bodies else MAX_QUEUED
        self._queue: deque[tuple[float, EndedRequest]] = deque()
        self._ids = f"call_{token_hex(8)}"
        self._number = 0
        self._repeated = 0  # calls of a batch that could not be stored, and may be stored nevertheless
        self._next_deletion = 0.0
        self._lock = threading.Lock()
        self._is_working = False
        self._is_closed = threading.Event()
        self._thread: NativeThread | None = NativeThread() if keeps_bodies else None
        self.dropped = 0
        """Calls of this process that are missing in the log, because the database was away for too long."""

    def observe(self, ended: EndedRequest) -> None:
        """Queue a request that has ended, if it was a call."""
        if not is_logged(ended):
            return
        if len(self._queue) >= self._capacity:
            self.dropped += 1
            return
        self._queue.append((time.time(), ended))
        if not self._is_working:
            self._start()

    def flush(self) -> None:
        """Store the calls that wait.

        Raises:
            StorageUnavailableError: they wait further.
        """
        with self._lock:
            while self._queue:
                batch = list(islice(self._queue, self._repeated or BATCH))
                is_repeated, self._repeated = self._repeated > 0, len(batch)
                self._store(batch, is_repeated=is_repeated)
                self._repeated = 0
                for _ in batch:
                    self._queue.popleft()
                self._number += len(batch)

    def close(self) -> None:
        """Store what waits and stop the work."""
        self._is_closed.set()
        try:
            self.flush()
        except StorageUnavailableError:
            log.warning("%d calls are missing in the log of calls, as the database is away", len(self._queue))
        if self._thread is not None:
            self._thread.close()

    def _start(self) -> None:
        self._is_working = True
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        is_away = False
        while not self._is_closed.wait(FLUSH_SECONDS):
            try:
                self.flush()
                self._delete_old_sums()
                is_away = False
            except StorageUnavailableError as error:
                if not is_away:
                    log.warning("the log of calls waits for the database: %s", error)
                is_away = True
            except Exception:
                log.exception("old sums of calls could not be deleted")

    def _store(self, batch: list[tuple[float, EndedRequest]], *, is_repeated: bool) -> None:
        """Store calls. Those that the database does not take are left out, as they would hold up all others.

        Raises:
            StorageUnavailableError
        """
        ids = [f"{self._ids}{self._number + index:012x}" for index in range(len(batch))]
        make = TimeSlices(SLICE_SECONDS).checked(to_row)
        try:
            rows = [make(id, at, ended, self._prices) for id, (at, ended) in zip(ids, batch, strict=True)]
            self._storage.calls.add(rows, self._bodies(ids, batch), self._size, is_repeated=is_repeated)
        except StorageUnavailableError:
            raise
        except Exception:
            self.dropped += len(batch)
            log.exception("%d calls cannot be stored in the log of calls", len(batch))

    def _bodies(self, ids: list[str], batch: list[tuple[float, EndedRequest]]) -> list[Any]:
        """Return the rows of bodies. The search for secrets in them runs in a native thread."""
        if self._thread is None:
            return []
        pairs = list(zip(ids, batch, strict=True))
        found = self._thread.call(lambda: [to_bodies(id, ended) for id, (_, ended) in pairs])
        return [body for body in found if body is not None]

    def _delete_old_sums(self) -> None:
        """Delete old sums now and then.

        Raises:
            StorageUnavailableError
        """
        now = time.monotonic()
        if now >= self._next_deletion:
            self._next_deletion = now + DELETION_SECONDS
            self._storage.calls.delete_old_sums(int(time.time()))
