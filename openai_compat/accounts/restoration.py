"""Restoration of the budgets in a ledger that is new or lost its contents, from the usage in the database."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from openai_compat.core.errors import StorageUnavailableError
from openai_compat.state.ledger import ColdLedgerError, Ledger, Level, Meter
from openai_compat.storage import Storage

from .account import Account, from_row
from .charges import end_user_owner
from .policy import Budget
from .windows import Window

if TYPE_CHECKING:
    from openai_compat.storage.usage import UsageStore

log = logging.getLogger(__name__)

TURN_SECONDS: Final = 60.0
"""Time for which no other process begins the same. The restoration of 10,000 keys takes a few seconds."""
BATCH: Final = 500
Spent = Callable[[float, float], Mapping[str, int]]
"""Costs between two times, by owner."""


class LedgerRestorer:
    """Restores what was spent. Rate limits begin anew, and calls whose records the ledger has lost are not known."""

    def __init__(self, storage: Storage, ledger: Ledger, clock: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._ledger = ledger
        self._clock = clock

    def restore(self) -> int | None:
        """Restore a cold ledger and return its version. Nothing is done before the first account was made.

        Raises:
            StoreError: the ledger or the database is away, or another process restores the ledger.
        """
        if self._storage.is_new:
            return 0
        now = self._clock()
        if not self._ledger.begin_turn(now, TURN_SECONDS):
            raise ColdLedgerError("another process restores the ledger")
        try:
            self._restore(now)
        except StorageUnavailableError as error:
            raise ColdLedgerError("the ledger is empty, and the database is away") from error
        finally:
            self._ledger.end_turn()
        return self._ledger.version()

    def _restore(self, now: float) -> None:
        if not self._storage.accounts.exist():
            return self._ledger.start(0)
        after, count = "", 0
        while rows := self._storage.accounts.with_budgets(after, BATCH):
            after = rows[-1].id
            for levels in _levels([from_row(row) for row in rows], self._storage.usage, now):
                self._ledger.restore(levels)
                count += len(levels)
        self._ledger.start(int(now))
        if count:
            log.warning("the ledger was empty: %d budgets were restored from the database", count)
        return None


def _levels(accounts: Sequence[Account], usage: UsageStore, now: float) -> Iterator[list[tuple[Meter, Level]]]:
    """Yield the levels of the budgets of accounts and of their end users."""
    owners: dict[tuple[str, Budget], list[str]] = defaultdict(list)
    for account in accounts:
        for budget in account.policy.budgets:
            owners[account.kind, budget].append(account.id)
        if account.policy.end_users is not None:
            for budget in account.policy.end_users.budgets:
                yield _levels_of(budget, _spent_by_end_user(usage, account), now)
    for (kind, budget), ids in owners.items():
        yield _levels_of(budget, partial(usage.spent, kind, ids), now)


def _spent_by_end_user(usage: UsageStore, account: Account) -> Spent:
    def spent(start: float, end: float) -> Mapping[str, int]:
        costs = usage.spent_by_end_user(account.kind, account.id, start, end)
        return {end_user_owner(account.id, name): cost for name, cost in costs.items()}

    return spent


def _levels_of(budget: Budget, spent: Spent, now: float) -> list[tuple[Meter, Level]]:
    """Return the levels of one budget of several owners. What was spent before a window of the calendar is over."""
    window: Window = budget.window
    start = window.start(now)
    current = spent(start, float("inf"))
    seconds = window.seconds
    previous = {} if seconds is None else spent(start - seconds, start)
    return [
        (window.meter(owner, budget.name, budget.nano, now), Level(current.get(owner, 0), previous.get(owner, 0)))
        for owner in current.keys() | previous.keys()
    ]
