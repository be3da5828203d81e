"""What is left of the limits and budgets of organizations, projects and keys."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from openai_compat.accounts.account import Account
from openai_compat.accounts.meters import MeterState
from openai_compat.accounts.money import to_dollars
from openai_compat.accounts.service import Accounts
from openai_compat.core.errors import AccountsUnavailableError, StorageUnavailableError
from openai_compat.core.turns import TimeSlices
from openai_compat.state.base import StoreError

from . import families
from .exposition import Labels
from .families import Family
from .shared_state import DatabaseProbe

MAX_ACCOUNTS: Final = 200
"""Accounts with limits or budgets that have metrics, the oldest ones. Each has a few series."""
ACCOUNTS_SECONDS: Final = 30.0
"""Seconds for which a worker remembers which accounts have limits."""

Values = dict[Labels, list[float]]


class MeterGauges:
    """Gauges of the limits and budgets.

    `read` returns nothing while the ledger is away. While the database is away it uses the accounts that it remembers.
    """

    def __init__(self, accounts: Accounts | None, database: DatabaseProbe) -> None:
        self._accounts = accounts
        self._database = database
        self._limited: Sequence[Account] = ()
        self._read_at: float | None = None

    def read(self, turns: TimeSlices) -> dict[Family, Values]:
        """Return the values by metric. Of accounts with the same name, the least that is left is shown."""
        found: dict[Family, Values] = {}
        if self._accounts is None:
            return found
        try:
            if not self._accounts.is_active():
                return found
            for account in self._accounts_with_limits(self._accounts):
                turns.check()
                for state in self._accounts.meters.states(account):
                    _add(found, account, state)
        except (AccountsUnavailableError, StorageUnavailableError, StoreError):
            return {}
        return found

    def _accounts_with_limits(self, accounts: Accounts) -> Sequence[Account]:
        now = time.monotonic()
        is_old = self._read_at is None or now - self._read_at >= ACCOUNTS_SECONDS
        if is_old and self._database.is_up():
            self._limited = accounts.manager.with_limits(MAX_ACCOUNTS)
            self._read_at = now
        return self._limited


def _add(found: dict[Family, Values], account: Account, state: MeterState) -> None:
    is_money = state.rule.kind == "money"
    labels = (account.kind, account.name, state.rule.name.removeprefix("budget:"))
    total, left = float(state.rule.limit), float(state.remaining)
    if is_money:
        total, left = to_dollars(state.rule.limit), to_dollars(state.remaining)
    whole, rest = (
        (families.BUDGET, families.BUDGET_REMAINING) if is_money else (families.LIMIT, families.LIMIT_REMAINING)
    )
    known = found.setdefault(rest, {}).get(labels)
    if known is None or left < known[0]:
        found[rest][labels] = [left]
        found.setdefault(whole, {})[labels] = [total]
