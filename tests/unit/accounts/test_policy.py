"""Policies, as JSON and as values."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.accounts.money import format_dollars, parse_dollars
from openai_compat.accounts.policy import PolicyError, parse_policy

COMPLETE: dict[str, Any] = {
    "models": ["gpt-4o*", "claude-?"],
    "endpoints": ["chat", "embeddings"],
    "limits": {"requests_per_minute": 60, "tokens_per_day": 10_000, "concurrent_requests": 3},
    "budgets": [
        {"amount": 5.25, "every": "month", "time_zone": "Europe/Berlin"},
        {"amount": 1.0, "every": "12h", "time_zone": "UTC"},
        {"amount": 100.0, "every": None, "time_zone": "UTC"},
    ],
    "end_users": {
        "models": [],
        "endpoints": [],
        "limits": {"requests_per_minute": 5},
        "budgets": [],
        "end_users": None,
    },
}


def test_a_policy_survives_being_stored() -> None:
    assert parse_policy(COMPLETE).to_object() == COMPLETE


def test_models_are_patterns_and_none_allow_all() -> None:
    policy = parse_policy(COMPLETE)
    assert policy.allows_model("gpt-4o-mini")
    assert not policy.allows_model("gpt-4")
    assert not policy.allows_model("GPT-4o")
    assert policy.allows_endpoint("chat")
    assert not policy.allows_endpoint("responses")
    assert parse_policy({}).allows_model("anything")


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ({"model": ["a"]}, "model"),
        ({"models": "gpt-4o"}, "models"),
        ({"models": [""]}, "models"),
        ({"endpoints": ["chats"]}, "endpoints"),
        ({"limits": {"rpm": 5}}, "limits.rpm"),
        ({"limits": {"requests_per_minute": -1}}, "limits.requests_per_minute"),
        ({"limits": {"requests_per_minute": True}}, "limits.requests_per_minute"),
        ({"limits": {"requests_per_minute": 1.5}}, "limits.requests_per_minute"),
        ({"limits": []}, None),
        ({"budgets": {"amount": 5}}, "budgets"),
        ({"budgets": [5]}, "budgets[0]"),
        ({"budgets": [{"amount": "much"}]}, "budgets[0].amount"),
        ({"budgets": [{"every": "day"}]}, "budgets[0].amount"),
        ({"budgets": [{"amount": 5, "every": 7}]}, "budgets[0].every"),
        ({"budgets": [{"amount": 5, "period": "day"}]}, "budgets[0].period"),
        ({"budgets": [{"amount": 5, "every": "day"}, {"amount": 6, "every": "day"}]}, "budgets"),
        ({"end_users": {"end_users": {}}}, "end_users.end_users"),
        ({"end_users": {"limits": {"rpm": 1}}}, "end_users.limits.rpm"),
        ({"end_users": 5}, "end_users"),
    ],
)
def test_what_is_wrong_is_refused_by_name(value: dict[str, Any], param: str | None) -> None:
    if param is None:
        assert parse_policy(value).limits == {}
        return
    with pytest.raises(PolicyError) as error:
        parse_policy(value)
    assert error.value.param == param


@pytest.mark.parametrize(
    ("value", "nano"),
    [(5, 5 * 10**9), ("0.25", 250_000_000), (0.1, 100_000_000), ("0.0000000015", 2), (0, 0), (10**9, 10**18)],
)
def test_amounts_are_exact(value: Any, nano: int) -> None:
    assert parse_dollars(value) == nano


@pytest.mark.parametrize("value", [-1, "NaN", "Infinity", "five", None, True, 10**9 + 1, [5]])
def test_other_amounts_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="must be an amount in dollars"):
        parse_dollars(value)


@pytest.mark.parametrize(
    ("nano", "text"), [(5 * 10**9, "$5.00"), (1, "$0.000000001"), (250_000_000, "$0.25"), (0, "$0.00")]
)
def test_amounts_are_shown_with_the_digits_that_they_need(nano: int, text: str) -> None:
    assert format_dollars(nano) == text
