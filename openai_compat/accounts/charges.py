"""Charges of a call, in requests, tokens, concurrent calls and money."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from math import inf
from typing import Final, Literal, NamedTuple

from openai_compat.state.ledger import Charge, Meter, Settlement, sliding_meter

from .account import Account, Caller
from .policy import CONCURRENT, RATES, Policy
from .windows import Window

Kind = Literal["requests", "tokens", "concurrent", "money"]
DIGEST_CHARS: Final = 24
MAX_REMEMBERED: Final = 4096
MAX_CALLERS: Final = 1024
"""Callers whose rules are remembered. Every call with a token has one of its own, of about 1 kB."""
ALWAYS: Final = Window()


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One limit or budget. `owner` has its meter, and `place` is the owner's name for people."""

    owner: str
    name: str
    kind: Kind
    limit: int
    place: str
    window: Window = ALWAYS
    seconds: float = inf

    @property
    def is_held(self) -> bool:
        """True if its charge is known at the end of the call only."""
        return self.kind in ("concurrent", "money")

    def meter(self, now: float) -> Meter:
        """Return its meter at the time `now`."""
        if self.seconds != inf:
            return sliding_meter(self.owner, self.name, self.limit, self.seconds, now)
        return self.window.meter(self.owner, self.name, self.limit, now)


class Estimate(NamedTuple):
    """The most that a call may use. `nano` is its cost, and None if the price is unknown."""

    tokens: int
    nano: int | None


class Metered(NamedTuple):
    """A charge, and the rule that it is made for."""

    rule: Rule
    charge: Charge

    def settlement(self, tokens: int, nano: int, now: float) -> Settlement | None:
        """Return the change at the end of a call that used `tokens` and cost `nano`, or None if there is none."""
        rule, charge = self
        if rule.kind == "money":
            return Settlement(rule.meter(now), charge.amount, nano)
        if rule.kind == "concurrent":
            return Settlement(charge.meter, charge.amount)
        if rule.kind == "tokens" and tokens != charge.amount:
            return Settlement(charge.meter, 0, tokens - charge.amount)
        return None


@lru_cache(MAX_CALLERS)
def has_budget(caller: Caller) -> bool:
    """Return True if a budget applies to some calls."""
    policies = [account.policy for account in caller.accounts]
    return any(policy.budgets or (policy.end_users is not None and policy.end_users.budgets) for policy in policies)


def rules_for(caller: Caller, end_user: str | None) -> Sequence[Rule]:
    """Return the limits and budgets that apply to a call, from the organization down to the end user."""
    rules = _rules_of_caller(caller)
    if end_user is None:
        return rules
    return [*rules, *(rule for account in caller.accounts for rule in _rules_of_end_user(account, end_user))]


def charge_by(rules: Sequence[Rule], estimate: Estimate, now: float) -> list[Metered]:
    """Return the charges of a call."""
    amounts = {"requests": 1, "tokens": estimate.tokens, "concurrent": 1, "money": estimate.nano or 0}
    return [Metered(rule, Charge(rule.meter(now), amounts[rule.kind], rule.is_held)) for rule in rules]


def rules_of(account: Account, end_user: str | None = None) -> Sequence[Rule]:
    """Return the rules of an account alone, or those of one of its end users, for reports."""
    return _rules_of_account(account) if end_user is None else tuple(_rules_of_end_user(account, end_user))


def end_user_owner(account_id: str, end_user: str) -> str:
    """Return the owner of the meters of an end user of an account."""
    digest = sha256(end_user.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_CHARS]
    return end_user_prefix(account_id) + digest


def end_user_prefix(account_id: str) -> str:
    """Return the beginning of the owners of the meters of all end users of an account."""
    return f"{account_id}/"


@lru_cache(MAX_CALLERS)
def _rules_of_caller(caller: Caller) -> tuple[Rule, ...]:
    limited = [account for account in caller.accounts if account.policy.limits or account.policy.budgets]
    return tuple(rule for account in limited for rule in _rules_of_account(account))


@lru_cache(MAX_REMEMBERED)
def _rules_of_account(account: Account) -> tuple[Rule, ...]:
    return tuple(_rules(account.id, f"{account.kind} {account.id}", account.policy))


def _rules_of_end_user(account: Account, end_user: str) -> Iterator[Rule]:
    """Yield the rules of an end user, whose name is not kept in the ledger."""
    if account.policy.end_users is not None:
        yield from _rules(end_user_owner(account.id, end_user), "this end user", account.policy.end_users)


def _rules(owner: str, place: str, policy: Policy) -> Iterator[Rule]:
    for name, limit in policy.limits.items():
        if name == CONCURRENT:
            yield Rule(owner, name, "concurrent", limit, place)
        else:
            unit, seconds = RATES[name]
            yield Rule(owner, name, "tokens" if unit == "tokens" else "requests", limit, place, seconds=seconds)
    for budget in policy.budgets:
        yield Rule(owner, budget.name, "money", budget.nano, place, budget.window, budget.window.seconds or inf)
