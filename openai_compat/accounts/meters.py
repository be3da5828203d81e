"""State of the limits and budgets of an account, and its correction by an administrator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isinf
from secrets import token_hex
from time import time
from typing import Any

from openai_compat.core.errors import InvalidRequestError, ObjectNotFoundError
from openai_compat.state.ledger import Ledger, Level, Meter, Settlement

from .account import Account
from .charges import Rule, rules_of
from .money import parse_dollars, to_dollars
from .policy import MAX_LIMIT
from .records import to_adjustment_record


@dataclass(frozen=True, slots=True)
class MeterState:
    """A limit or a budget with what was used of it."""

    rule: Rule
    meter: Meter
    level: Level

    @property
    def used(self) -> int:
        """What counts towards the limit, without what running calls hold. Money is in nano-dollars."""
        return self.level.used(self.meter) - self.level.held

    @property
    def remaining(self) -> int:
        """What is left, with what running calls hold taken off."""
        return self.level.remaining(self.meter)

    @property
    def resets_in(self) -> float | None:
        """Seconds until nothing counts any more, and None for a budget without a window."""
        seconds = self.level.reset_after(self.meter)
        return None if isinf(seconds) else seconds

    def to_object(self) -> dict[str, Any]:
        """Return the state as JSON, with amounts of money in dollars."""
        show: Callable[[int], float] = to_dollars if self.rule.kind == "money" else int
        seconds = self.resets_in
        return {
            "object": "organization.meter",
            "name": self.rule.name,
            "kind": self.rule.kind,
            "limit": show(self.rule.limit),
            "used": show(self.used),
            "held": show(self.level.held),
            "remaining": show(self.remaining),
            "resets_in_seconds": None if seconds is None else round(seconds, 3),
        }


class Meters:
    """The meters of accounts. Every method raises `StoreError` if the ledger is away."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float] = time) -> None:
        self._ledger = ledger
        self._clock = clock

    def states(self, account: Account, end_user: str | None = None) -> list[MeterState]:
        """Return the state of every limit and budget of an account, or of one of its end users."""
        rules = rules_of(account, end_user)
        meters = [rule.meter(self._clock()) for rule in rules]
        return [MeterState(*state) for state in zip(rules, meters, self._ledger.levels(meters), strict=True)]

    def set_used(self, account: Account, name: str, used: Any, end_user: str | None = None) -> MeterState:
        """Set what counts as used in the present window of one meter, of money in dollars.

        The difference is settled like that of a call, so that what calls settle meanwhile counts as well. Corrections
        of budgets are recorded in the database, from which a lost ledger is restored.

        Raises:
            ObjectNotFoundError: the account has no such meter. InvalidRequestError: `used` is no amount.
        """
        rule = next((rule for rule in rules_of(account, end_user) if rule.name == name), None)
        if rule is None or rule.kind == "concurrent":
            raise ObjectNotFoundError(f"The {account.kind} '{account.id}' has no meter '{name[:100]}' to set.")
        meter = rule.meter(self._clock())
        changes = _changes(meter, self._ledger.levels([meter])[0], _parse_amount(rule, used))
        id = f"adjustment-{token_hex(12)}"
        self._ledger.settle(id, changes, to_adjustment_record(id, changes) if rule.kind == "money" else None)
        return MeterState(rule, meter, self._ledger.levels([meter])[0])


def _changes(meter: Meter, level: Level, used: int) -> list[Settlement]:
    """Return the changes after which `used` counts in the present window, and nothing of the one before."""
    changes = [Settlement(meter, added=used - level.current)]
    if level.previous:
        changes.append(Settlement(meter._replace(window=meter.window - 1), added=-level.previous))
    return changes


def _parse_amount(rule: Rule, used: Any) -> int:
    if rule.kind == "money":
        try:
            return parse_dollars(used)
        except ValueError as error:
            raise InvalidRequestError(f"'used' {error}.", param="used") from error
    if not isinstance(used, int) or isinstance(used, bool) or not 0 <= used <= MAX_LIMIT:
        raise InvalidRequestError("'used' must be a whole number.", param="used")
    return used


def to_meter_list(states: list[MeterState]) -> Mapping[str, Any]:
    """Return the states as a list object."""
    return {"object": "list", "data": [state.to_object() for state in states], "has_more": False}
