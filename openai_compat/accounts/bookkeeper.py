"""Settlement of calls, and the way of their records from the ledger into the database."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from openai_compat.core.errors import StorageUnavailableError
from openai_compat.core.turns import TimeSlices
from openai_compat.state.base import StoreError
from openai_compat.state.ledger import Ledger, Settlement
from openai_compat.storage import Storage

from .leftovers import LeftoverFiles, PendingSettlement
from .records import to_rows
from .restoration import LedgerRestorer

log = logging.getLogger(__name__)

STARTING_DELAY: Final = 2.0
"""Seconds after the start of a worker, whose first calls would compete with the work."""
KEEP_ALIVE_SECONDS: Final = 5.0
"""Time between two signs of life, several of which may fail before the holds of this process are released."""
MOVE_SECONDS: Final = 1.0
"""Time between two looks for records."""
TURN_SECONDS: Final = 15.0
BATCH: Final = 200
"""Records moved at once, which takes the ledger about a millisecond."""
TIDY_SECONDS: Final = 2.0
DELETION_SECONDS: Final = 60.0
"""Time between two looks for old usage. While there is some, a batch is deleted at each look for records."""
UNDERWAY_SECONDS: Final = 2.0
"""Time that settlements which have begun get to finish when the process stops."""
MAX_DEFERRED: Final = 10_000
"""Settlements that wait for a ledger that is away."""
MAX_RECORDS: Final = 1_000_000
"""Records that wait for a database that is away. They take about 500 MB."""


class Bookkeeper:
    """Settles calls, at once or when the ledger is back, and moves the records of all calls to the database.

    One thread (under gevent, a greenlet) of each process works in the background, once there are accounts or a call was
    settled.
    """

    def __init__(
        self,
        ledger: Ledger,
        storage: Storage,
        tidy: Callable[[float], None],
        leftovers: LeftoverFiles,
        usage_ttl: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Use `tidy` to keep the ledger small. It is called about every `TIDY_SECONDS` by one of all processes.

        `leftovers` keeps what cannot be settled before this process stops. Rows of calls are deleted after `usage_ttl`
        seconds, and never if it is 0.
        """
        self._ledger = ledger
        self._storage = storage
        self._tidy = tidy
        self._leftovers = leftovers
        self._usage_ttl = usage_ttl
        self._next_deletion = self._next_tidying = 0.0
        self._clock = clock
        self._restorer = LedgerRestorer(storage, ledger, clock)
        self._deferred: deque[PendingSettlement] = deque()
        self._underway: set[str] = set()
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        self._is_working = False
        self._is_closed = threading.Event()
        self.dropped = 0
        """Calls of this process whose settlement was lost, because the ledger was away for too long."""

    def settle(self, hold_id: str, settlements: Sequence[Settlement], record: str | None) -> None:
        """Settle a call. Amounts that cannot be settled now are settled later."""
        self.start()
        self._underway.add(hold_id)
        try:
            self._settle_or_defer(PendingSettlement(hold_id, settlements, record))
        finally:
            self._underway.discard(hold_id)

    def _settle_or_defer(self, call: PendingSettlement) -> None:
        if not self._deferred:
            try:
                self._ledger.settle(call.hold_id, call.settlements, call.record)
            except StoreError as error:
                log.warning("a call is settled later: %s", error)
            else:
                return
        if len(self._deferred) < MAX_DEFERRED:
            self._deferred.append(call)
        else:
            self.dropped += 1

    def start_soon(self) -> None:
        """Start the work in the background if other processes may have left some, also if no call comes."""
        threading.Thread(target=self._start_later, daemon=True).start()

    def _start_later(self) -> None:
        if self._is_closed.wait(STARTING_DELAY):
            return
        with suppress(StoreError):  # the first call that is charged starts the work
            if self._leftovers.exist() or self._ledger.version() is not None:
                self.start()

    def start(self) -> None:
        """Start the work in the background, which begins with a sign of life."""
        if self._is_working:
            return
        with self._lock:
            if self._is_working or self._is_closed.is_set():
                return
            self._is_working = True
        threading.Thread(target=self._work, daemon=True).start()

    def close(self) -> None:
        """Stop the work. What is in the ledger is moved by another process, or after the next start.

        What waits for the ledger is settled if it is back, and left for another process otherwise.
        """
        self._is_closed.set()
        deadline = time.monotonic() + UNDERWAY_SECONDS
        while self._underway and time.monotonic() < deadline:  # at a quick stop, clients may have their answers already
            time.sleep(0.01)
        try:
            self.settle_deferred()
        except StoreError as error:
            log.warning("the ledger is away: %s", error)
            self._leave(self._ledger.holder, self._deferred)

    def _work(self) -> None:
        next_sign = 0.0
        while not self._is_closed.is_set():
            now = time.monotonic()
            try:
                if now >= next_sign:
                    self._ledger.keep_alive(self._clock())
                    next_sign = now + KEEP_ALIVE_SECONDS
                if self._ledger.version() is None:
                    self._restorer.restore()
                self.settle_deferred()
                self.settle_leftovers()
                self.move_records()
            except StoreError as error:
                log.warning("the ledger is away: %s", error)
            except Exception:
                log.exception("the settlement of calls failed and is tried again")
            self._is_closed.wait(MOVE_SECONDS)

    def settle_deferred(self) -> None:
        """Settle what waits.

        Raises:
            StoreError
        """
        with self._settling:
            _settle_all(self._ledger, self._deferred)

    def settle_leftovers(self) -> None:
        """Settle what workers left that stopped while the ledger was away.

        They are settled under the name of the worker that left them. Holds of others stay, and a settlement that had
        taken effect without its reply is known.

        Raises:
            StoreError
        """
        with self._settling:
            while (leftover := self._leftovers.take()) is not None:
                ledger = self._ledger.for_holder(leftover.holder)
                try:
                    ledger.keep_alive(self._clock())  # or its marks of settled calls would stay in Redis
                    _settle_all(ledger, leftover.pending)
                finally:
                    ledger.close()
                    self._leave(leftover.holder, leftover.pending)

    def _leave(self, holder: str, pending: deque[PendingSettlement]) -> None:
        """Write settlements that are not done to a file, unless there are none."""
        if not pending:
            return
        try:
            self._leftovers.leave(holder, pending)
            log.warning("%d calls are settled by another worker once the ledger is back", len(pending))
        except OSError as error:
            self.dropped += len(pending)
            log.error("%d calls are not charged, as the ledger is away: %s", len(pending), error)
        pending.clear()

    def move_records(self) -> None:
        """Move all records to the database, unless another process does it.

        Raises:
            StoreError
        """
        if not self._ledger.begin_turn(self._clock(), TURN_SECONDS):
            return
        try:
            while records := self._ledger.records(BATCH):
                self._store([body for _, body in records])
                self._ledger.delete_records([id for id, _ in records])
            if (now := time.monotonic()) >= self._next_tidying:
                self._next_tidying = now + TIDY_SECONDS
                self._tidy(self._clock())
            self._delete_old_usage(self._clock())
        except StorageUnavailableError:
            dropped = self._ledger.drop_records(MAX_RECORDS)
            log.warning("records of calls wait for the database, %d were dropped so far", dropped)
        finally:
            self._ledger.end_turn()

    def _store(self, records: Sequence[str]) -> None:
        """Store records. One that the database does not take is left out, as it would hold up all others.

        Raises:
            StorageUnavailableError
        """
        try:
            calls, adjustments = to_rows(records)
            if adjustments:
                self._storage.adjustments.add(adjustments)
            if calls:
                self._storage.usage.add(calls)
        except StorageUnavailableError:
            raise
        except Exception:
            if len(records) > 1:
                for record in records:
                    self._store([record])
            else:
                log.exception("the record of a call cannot be stored: %s", records[0])

    def _delete_old_usage(self, now: float) -> None:
        """Delete a batch of the oldest rows, if any is too old. Their sums are kept.

        Raises:
            StorageUnavailableError
        """
        if self._usage_ttl and now >= self._next_deletion:
            deleted = self._storage.usage.delete_before(int(now - self._usage_ttl))
            self._next_deletion = now if deleted else now + DELETION_SECONDS


def _settle_all(ledger: Ledger, pending: deque[PendingSettlement]) -> None:
    """Settle calls and remove them from `pending`.

    Raises:
        StoreError
    """
    turns = TimeSlices()
    while pending:
        first = pending[0]
        ledger.settle(first.hold_id, first.settlements, first.record)
        pending.popleft()
        turns.check()
