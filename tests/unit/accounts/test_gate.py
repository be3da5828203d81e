"""Admission and settlement of calls, with a ledger in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openai_compat.accounts.account import Account, Caller
from openai_compat.accounts.bookkeeper import Bookkeeper
from openai_compat.accounts.charges import rules_of
from openai_compat.accounts.gate import Admission, CallDescription, Gate, GatePolicy, Outcome
from openai_compat.accounts.leftovers import LeftoverFiles
from openai_compat.accounts.policy import parse_policy
from openai_compat.core.errors import (
    AccountsUnavailableError,
    BudgetExceededError,
    LimitExceededError,
    PermissionDeniedError,
)
from openai_compat.core.prices import parse_price
from openai_compat.core.types import Usage
from openai_compat.state.base import StoreError
from openai_compat.state.ledger import Ledger
from openai_compat.state.sqlite_ledger import MEMORY, SQLiteLedger
from openai_compat.storage import open_storage

PRICE = parse_price({"input": 1_000_000, "output": 1_000_000})
"""One dollar for each token."""
DOLLAR = 10**9
START = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Site:
    """A gate with its ledger, at a time of the test's choice."""

    def __init__(self, folder: Path, policy: GatePolicy | None = None) -> None:
        self.clock = Clock()
        self.ledger = SQLiteLedger(str(folder / "ledger.db"), "here", self.clock)
        self.ledger.start(1)
        self.storage = open_storage(None, str(folder), 0, 0)
        self.bookkeeper = Bookkeeper(self.ledger, self.storage, lambda _: None, LeftoverFiles(folder), clock=self.clock)
        self.bookkeeper.close()  # the tests do its work
        local = SQLiteLedger(MEMORY, "local", self.clock)
        self.gate = Gate(self.ledger, local, self.bookkeeper, policy or GatePolicy(), self.clock)

    def close(self) -> None:
        self.ledger.close()

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.ledger.records(100)]

    def held(self, caller: Caller) -> int:
        meters = [rule.meter(self.clock()) for rule in rules_of(caller.key)]
        return sum(level.held for level in self.ledger.levels(meters))

    def spent(self, caller: Caller) -> int:
        meters = [rule.meter(self.clock()) for rule in rules_of(caller.key) if rule.name.startswith("budget")]
        return sum(level.current for level in self.ledger.levels(meters))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def caller_with(key: dict[str, Any], project: dict[str, Any] | None = None) -> Caller:
    return Caller(
        Account("key_1", "key", "test", 1, "proj_1", policy=parse_policy(key)),
        Account("proj_1", "project", "test", 1, "org-1", policy=parse_policy(project or {})),
        Account("org-1", "organization", "test", 1),
    )


def describe(input_tokens: int = 0, output_tokens: int = 0, **fields: Any) -> CallDescription:
    return CallDescription("chat", fields.pop("model", "gpt"), "req_1", input_tokens, output_tokens, **fields)


def finish(admission: Admission, usage: Usage | None = None, status: int = 200) -> None:
    admission.settle(Outcome(status, 10, "gpt", usage, price=PRICE if admission.call.price else None))


def test_requests_are_limited_in_every_window(site: Site) -> None:
    caller = caller_with({"limits": {"requests_per_minute": 3}})
    for left in (2, 1, 0):
        headers = site.gate.admit(caller, describe()).headers()
        assert headers["x-ratelimit-remaining-requests"] == str(left)
        assert headers["x-ratelimit-limit-requests"] == "3"
    with pytest.raises(LimitExceededError, match=r"requests per min \(RPM\): Limit 3, Used 3, Requested 1") as error:
        site.gate.admit(caller, describe())
    assert (error.value.type, error.value.code) == ("requests", "rate_limit_exceeded")
    assert error.value.headers["x-ratelimit-remaining-requests"] == "0"
    assert error.value.headers["x-ratelimit-limit-requests"] == "3"
    assert error.value.retry_after is not None
    site.clock.now += error.value.retry_after
    site.gate.admit(caller, describe())


def test_messages_have_the_limits_in_headers_of_anthropic_too(site: Site) -> None:
    caller = caller_with({"limits": {"requests_per_minute": 3, "tokens_per_minute": 100}})
    call = CallDescription("messages", "gpt", "req_1", 30, 10)
    headers = site.gate.admit(caller, call).headers()
    assert {name: value for name, value in headers.items() if name.startswith("anthropic-")} == {
        "anthropic-ratelimit-requests-limit": "3",
        "anthropic-ratelimit-requests-remaining": "2",
        "anthropic-ratelimit-requests-reset": "2027-01-15T08:02:00Z",
        "anthropic-ratelimit-tokens-limit": "100",
        "anthropic-ratelimit-tokens-remaining": "60",
        "anthropic-ratelimit-tokens-reset": "2027-01-15T08:02:00Z",
    }
    assert headers["x-ratelimit-remaining-tokens"] == "60"
    assert not any(name.startswith("anthropic-") for name in site.gate.admit(caller, describe()).headers())


def test_a_refused_call_costs_nothing(site: Site) -> None:
    caller = caller_with({"limits": {"requests_per_minute": 10, "tokens_per_minute": 100}})
    site.gate.admit(caller, describe(60, 0))
    for _ in range(5):
        with pytest.raises(LimitExceededError):
            site.gate.admit(caller, describe(41, 0))
    assert site.gate.admit(caller, describe(40, 0)).headers()["x-ratelimit-remaining-requests"] == "8"


def test_tokens_are_corrected_at_the_end(site: Site) -> None:
    caller = caller_with({"limits": {"tokens_per_minute": 100}})
    finish(site.gate.admit(caller, describe(10, 90)), Usage(8, 12))
    assert site.gate.admit(caller, describe(10, 70)).headers()["x-ratelimit-remaining-tokens"] == "0"


def test_a_call_above_the_whole_limit_is_not_to_be_repeated(site: Site) -> None:
    with pytest.raises(LimitExceededError, match="Request too large for gpt") as error:
        site.gate.admit(caller_with({"limits": {"tokens_per_minute": 100}}), describe(60, 41))
    assert error.value.is_retryable is False
    assert error.value.retry_after is None


def test_a_place_among_concurrent_calls_is_given_back(site: Site) -> None:
    caller = caller_with({"limits": {"concurrent_requests": 1}})
    first = site.gate.admit(caller, describe())
    with pytest.raises(LimitExceededError, match="concurrent requests") as error:
        site.gate.admit(caller, describe())
    assert error.value.retry_after == 1
    finish(first, status=499)
    finish(first)  # a second end changes nothing
    second = site.gate.admit(caller, describe())
    with pytest.raises(LimitExceededError):
        site.gate.admit(caller, describe())
    finish(second)
    assert site.held(caller) == 0


def test_a_budget_is_reserved_before_and_settled_after(site: Site) -> None:
    caller = caller_with({"budgets": [{"amount": 100, "every": "month"}]})
    call = describe(10, 40, price=PRICE)
    first, second = site.gate.admit(caller, call), site.gate.admit(caller, call)
    with pytest.raises(BudgetExceededError, match="reserved for calls") as held:
        site.gate.admit(caller, call)
    assert (held.value.is_retryable, held.value.retry_after) == (None, 1)
    finish(first, Usage(10, 20))
    finish(second, Usage(10, 40))
    assert site.spent(caller) == 80 * DOLLAR
    with pytest.raises(BudgetExceededError, match="exceeded your current quota") as spent:
        site.gate.admit(caller, call)
    assert (spent.value.code, spent.value.is_retryable) == ("insufficient_quota", False)
    assert sum(record["cost_nano"] for record in site.records()) == site.spent(caller)


def test_a_settlement_may_exceed_the_reservation(site: Site) -> None:
    caller = caller_with({"budgets": [{"amount": 50}]})
    finish(site.gate.admit(caller, describe(10, 10, price=PRICE)), Usage(60, 10))
    assert site.spent(caller) == 70 * DOLLAR


@pytest.mark.parametrize("status", [400, 429, 499, 502])
def test_a_call_without_an_answer_costs_nothing(site: Site, status: int) -> None:
    caller = caller_with({"budgets": [{"amount": 50}]})
    finish(site.gate.admit(caller, describe(10, 10, price=PRICE)), status=status)
    assert (site.spent(caller), site.held(caller)) == (0, 0)
    assert site.records()[0]["status"] == status


def test_the_next_month_has_a_budget_of_its_own(site: Site) -> None:
    caller = caller_with({"budgets": [{"amount": 50, "every": "month"}]})
    over_midnight = site.gate.admit(caller, describe(50, 0, price=PRICE))
    site.clock.now += 32 * 86_400
    finish(over_midnight, Usage(30, 0))
    assert site.spent(caller) == 30 * DOLLAR  # charged when it is known
    site.gate.admit(caller, describe(20, 0, price=PRICE))


def test_all_levels_are_charged_or_none(site: Site) -> None:
    caller = caller_with({"limits": {"requests_per_minute": 1}}, {"limits": {"requests_per_minute": 5}})
    site.gate.admit(caller, describe())
    for _ in range(3):
        with pytest.raises(LimitExceededError, match="key key_1"):
            site.gate.admit(caller, describe())
    other = Caller(Account("key_2", "key", "other", 1, "proj_1"), caller.project, caller.organization)
    assert site.gate.admit(other, describe()).headers()["x-ratelimit-remaining-requests"] == "3"


def test_end_users_have_limits_of_their_own(site: Site) -> None:
    caller = caller_with({"end_users": {"limits": {"requests_per_minute": 1}}})
    site.gate.admit(caller, describe(end_user="ann"))
    site.gate.admit(caller, describe(end_user="bob"))
    site.gate.admit(caller, describe())
    with pytest.raises(LimitExceededError, match="this end user"):
        site.gate.admit(caller, describe(end_user="ann"))


@pytest.mark.parametrize(
    ("policy", "code"),
    [({"models": ["claude-*"]}, "model_not_found"), ({"endpoints": ["embeddings"]}, "endpoint_not_allowed")],
)
def test_models_and_endpoints_may_be_restricted(site: Site, policy: dict[str, Any], code: str) -> None:
    for caller in (caller_with(policy), caller_with({}, policy)):
        with pytest.raises(PermissionDeniedError) as error:
            site.gate.admit(caller, describe())
        assert error.value.code == code


def test_a_model_without_a_price_is_refused_to_keys_with_a_budget(tmp_path: Path, site: Site) -> None:
    caller = caller_with({"budgets": [{"amount": 50}]})
    with pytest.raises(PermissionDeniedError, match="price of the model 'gpt' is unknown"):
        site.gate.admit(caller, describe())
    site.gate.admit(caller_with({"limits": {"requests_per_minute": 1}}), describe())
    lenient = Site(tmp_path / "lenient", GatePolicy(unknown_price="allow"))
    finish(lenient.gate.admit(caller, describe()), Usage(1, 1))
    assert lenient.records()[0]["cost_nano"] is None
    lenient.close()


class AbsentLedger(Ledger):
    """A ledger that is away until `is_back` is set."""

    is_back = False

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __getattribute__(self, name: str) -> Any:
        if name in {"reserve", "settle", "keep_alive"} and not object.__getattribute__(self, "is_back"):
            return absent
        if name in Ledger.__abstractmethods__:
            return getattr(object.__getattribute__(self, "_ledger"), name)
        return object.__getattribute__(self, name)


AbsentLedger.__abstractmethods__ = frozenset()


def absent(*_: Any) -> Any:
    raise StoreError("away")


@pytest.mark.parametrize("choice", ["local", "refuse"])
def test_limits_without_the_ledger(tmp_path: Path, choice: Any) -> None:
    site = Site(tmp_path)
    gate = Gate(
        AbsentLedger(site.ledger), SQLiteLedger(MEMORY, "local"), site.bookkeeper, GatePolicy(choice), site.clock
    )
    caller = caller_with({"limits": {"requests_per_minute": 1, "concurrent_requests": 1}})
    if choice == "refuse":
        with pytest.raises(AccountsUnavailableError):
            gate.admit(caller, describe())
    else:
        finish(gate.admit(caller, describe()))
        with pytest.raises(LimitExceededError):
            gate.admit(caller, describe())
    site.close()


def test_what_was_spent_without_the_ledger_is_settled_once_when_it_is_back(tmp_path: Path) -> None:
    site = Site(tmp_path)
    away = AbsentLedger(site.ledger)
    bookkeeper = Bookkeeper(away, site.storage, lambda _: None, LeftoverFiles(tmp_path), clock=site.clock)
    bookkeeper.close()
    policy = GatePolicy(budgets_without_ledger="allow")
    gate = Gate(away, SQLiteLedger(MEMORY, "local"), bookkeeper, policy, site.clock)
    caller = caller_with({"budgets": [{"amount": 50}]})
    finish(gate.admit(caller, describe(10, 10, price=PRICE)), Usage(10, 5))
    assert site.spent(caller) == 0
    away.is_back = True
    bookkeeper.settle_deferred()
    bookkeeper.settle_deferred()
    assert (site.spent(caller), site.held(caller), len(site.records())) == (15 * DOLLAR, 0, 1)
    site.close()


def test_budgets_without_the_ledger_are_refused_by_default(tmp_path: Path) -> None:
    site = Site(tmp_path)
    gate = Gate(AbsentLedger(site.ledger), SQLiteLedger(MEMORY, "local"), site.bookkeeper, GatePolicy(), site.clock)
    with pytest.raises(AccountsUnavailableError):
        gate.admit(caller_with({"budgets": [{"amount": 50}]}), describe(price=PRICE))
    site.close()
