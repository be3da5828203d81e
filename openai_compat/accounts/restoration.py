"""Restoration of the budgets in a ledger that is new or lost its contents, from the rows of the database."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from openai_compat.core.errors import StorageUnavailableError
from openai_compat.state.ledger import ColdLedgerError, Ledger, Level, Meter
from openai_compat.storage import Storage

from .account import Account, from_row
from .charges import end_user_owner, end_user_prefix
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
Adjusted = Callable[[int], Mapping[str, int]]
"""Corrections by administrators in a window of a budget, by owner."""
Adjustments = Mapping[tuple[str, int], Mapping[str, int]]
"""All corrections, by the name and the window of the meter."""


class LedgerRestorer:
    """Restores what counts as spent. Rate limits begin anew, and records that the ledger has lost are not known."""

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
        adjustments = self._storage.adjustments.sums()
        while rows := self._storage.accounts.with_budgets(after, BATCH):
            after = rows[-1].id
            for levels in _levels([from_row(row) for row in rows], self._storage.usage, adjustments, now):
                self._ledger.restore(levels)
                count += len(levels)
        self._ledger.start(int(now))
        if count:
            log.warning("the ledger was empty: %d budgets were restored from the database", count)
        return None


def _levels(
    accounts: Sequence[Account], usage: UsageStore, adjustments: Adjustments, now: float
) -> Iterator[list[tuple[Meter, Level]]]:
    """Yield the levels of the budgets of accounts and of their end users."""
    owners: dict[tuple[str, Budget], list[str]] = defaultdict(list)
    for account in accounts:
        for budget in account.policy.budgets:
            owners[account.kind, budget].append(account.id)
        if account.policy.end_users is not None:
            is_end_user = partial(_is_end_user_of, account.id)
            for budget in account.policy.end_users.budgets:
                adjusted = partial(_adjusted, adjustments, budget.name, is_end_user)
                yield _levels_of(budget, _spent_by_end_user(usage, account), adjusted, now)
    for (kind, budget), ids in owners.items():
        adjusted = partial(_adjusted, adjustments, budget.name, frozenset(ids).__contains__)
        yield _levels_of(budget, partial(usage.spent, kind, ids), adjusted, now)


def _spent_by_end_user(usage: UsageStore, account: Account) -> Spent:
    def spent(start: float, end: float) -> Mapping[str, int]:
        costs = usage.spent_by_end_user(account.kind, account.id, start, end)
        return {end_user_owner(account.id, name): cost for name, cost in costs.items()}

    return spent


def _is_end_user_of(account_id: str, owner: str) -> bool:
    return owner.startswith(end_user_prefix(account_id))


def _adjusted(adjustments: Adjustments, name: str, is_owner: Callable[[str], bool], period: int) -> Mapping[str, int]:
    found = adjustments.get((name, period), {})
    return {owner: amount for owner, amount in found.items() if is_owner(owner)}


def _levels_of(budget: Budget, spent: Spent, adjusted: Adjusted, now: float) -> list[tuple[Meter, Level]]:
    """Return the levels of one budget of several owners. What was spent before a window of the calendar is over."""
    window: Window = budget.window
    start, seconds = window.start(now), window.seconds
    period = window.meter("", budget.name, budget.nano, now).window
    current = _add(spent(start, float("inf")), adjusted(period))
    previous = Counter[str]() if seconds is None else _add(spent(start - seconds, start), adjusted(period - 1))
    return [
        (window.meter(owner, budget.name, budget.nano, now), Level(max(current[owner], 0), max(previous[owner], 0)))
        for owner in current.keys() | previous.keys()
    ]


def _add(costs: Mapping[str, int], amounts: Mapping[str, int]) -> Counter[str]:
    total = Counter(costs)
    total.update(amounts)
    return total
