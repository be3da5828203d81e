"""What a call charges: requests, tokens, a place among the concurrent calls, and money."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal

from openai_compat.state.ledger import Charge, Meter, Settlement, sliding_meter

from .account import Caller
from .policy import CONCURRENT, RATES, Budget, Policy

Kind = Literal["requests", "tokens", "concurrent", "money"]
DIGEST_CHARS: Final = 24


@dataclass(frozen=True, slots=True)
class Estimate:
    """The most that a call may use. `nano` is its cost, and None if the price is unknown."""

    tokens: int
    nano: int | None


@dataclass(frozen=True, slots=True)
class Metered:
    """A charge with what it counts and where. `budget` belongs to money."""

    charge: Charge
    name: str
    kind: Kind
    place: str
    budget: Budget | None = None

    @property
    def is_money(self) -> bool:
        """True for a budget."""
        return self.kind == "money"

    def settlement(self, tokens: int, nano: int, now: float) -> Settlement | None:
        """Return the change at the end of a call that used `tokens` and cost `nano`, or None if there is none."""
        meter, amount = self.charge.meter, self.charge.amount
        if self.kind == "tokens":
            return Settlement(meter, added=tokens - amount) if tokens != amount else None
        if self.kind == "concurrent":
            return Settlement(meter, released=amount)
        if self.budget is not None:
            present = self.budget.window.meter(meter.owner, meter.name, meter.limit, now)
            return Settlement(present, released=amount, added=nano)
        return None


def has_budget(caller: Caller, end_user: str | None) -> bool:
    """Return True if any budget applies to the call."""
    return any(policy.budgets for _, _, policy in _policies(caller, end_user))


def charges_of(caller: Caller, end_user: str | None, estimate: Estimate, now: float) -> list[Metered]:
    """Return the charges of a call, those of the organization first and those of the end user last."""
    return [
        metered
        for owner, place, policy in _policies(caller, end_user)
        for metered in _charges(owner, place, policy, estimate, now)
    ]


def meters_of(owner: str, policy: Policy, now: float) -> dict[str, Meter]:
    """Return the meters of an account by their names, for reports."""
    charges = _charges(owner, "", policy, Estimate(0, 0), now)
    return {metered.name: metered.charge.meter for metered in charges}


def _policies(caller: Caller, end_user: str | None) -> Iterator[tuple[str, str, Policy]]:
    """Yield the owner of the meters, its name for people, and the policy, for all that apply to the call."""
    for account in caller.accounts:
        yield account.id, f"{account.kind} {account.id}", account.policy
    if end_user is None:
        return
    for account in caller.accounts:
        if account.policy.end_users is not None:
            digest = sha256(end_user.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_CHARS]
            yield f"{account.id}/{digest}", "this end user", account.policy.end_users


def _charges(owner: str, place: str, policy: Policy, estimate: Estimate, now: float) -> Iterator[Metered]:
    for name, limit in policy.limits.items():
        if name == CONCURRENT:
            yield Metered(Charge(Meter(owner, name, limit), 1, is_held=True), name, "concurrent", place)
        else:
            unit, seconds = RATES[name]
            kind: Kind = "tokens" if unit == "tokens" else "requests"
            amount = estimate.tokens if unit == "tokens" else 1
            yield Metered(Charge(sliding_meter(owner, name, limit, seconds, now), amount), name, kind, place)
    for budget in policy.budgets:
        meter = budget.window.meter(owner, budget.name, budget.nano, now)
        yield Metered(Charge(meter, estimate.nano or 0, is_held=True), budget.name, "money", place, budget)


def tightest(metered: Sequence[Metered], remaining: Sequence[int], kind: Kind) -> int | None:
    """Return the position of the charge of this kind that has the least left, or None."""
    positions = [position for position, item in enumerate(metered) if item.kind == kind]
    return min(positions, key=lambda position: remaining[position], default=None)
