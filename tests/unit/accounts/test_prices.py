"""Prices of models."""

from __future__ import annotations

import pytest

from openai_compat.accounts.price_data import to_price
from openai_compat.core.prices import Price, parse_price
from openai_compat.core.types import Usage

GPT = parse_price({"input": 2.5, "cached_input": 1.25, "output": 10})


@pytest.mark.parametrize(
    ("usage", "nano"),
    [
        (Usage(1, 0), 2500),
        (Usage(0, 1), 10_000),
        (Usage(1_000_000, 0), 2_500_000_000),
        (Usage(100, 10, cached_tokens=60), 40 * 2500 + 60 * 1250 + 10 * 10_000),
        (Usage(100, 0, cached_tokens=60, cache_write_tokens=40), 60 * 1250 + 40 * 2500),
        (Usage(5, 0, cached_tokens=10), 10 * 1250),  # an upstream whose counts do not fit together
    ],
)
def test_the_cost_has_the_price_of_each_kind_of_token(usage: Usage, nano: int) -> None:
    assert GPT.cost(usage) == nano


def test_fractions_of_a_nano_dollar_are_rounded_once() -> None:
    cheap = parse_price({"input": 0.0004, "output": 0.0001})
    assert cheap.cost(Usage(1, 0)) == 0
    assert cheap.cost(Usage(1, 1)) == 1  # 0.4 + 0.1 nano-dollars


def test_a_request_may_have_a_price_of_its_own() -> None:
    assert parse_price({"request": 0.002}).cost(Usage(100, 100)) == 2_000_000


def test_an_estimate_is_never_lower_than_the_cost() -> None:
    price = parse_price({"input": 0.3, "cache_write": 0.375, "output": 1.5})
    for cached in (0, 50, 100):
        usage = Usage(100, 20, cached_tokens=cached, cache_write_tokens=100 - cached)
        assert price.highest_cost(100, 20) >= price.cost(usage)


def test_prices_that_are_not_given_follow_that_of_the_input() -> None:
    assert parse_price({"input": 3}) == Price(3_000_000, 3_000_000, 3_000_000, 0, 0)


def test_a_long_prompt_has_the_price_of_its_tier_for_all_tokens() -> None:
    claude = to_price([(0, {"input": 3, "output": 15}), (200_000, {"input": 6, "output": 22.5})])
    assert claude is not None
    assert claude.cost(Usage(200_000, 1)) == 200_000 * 3000 + 15_000
    assert claude.cost(Usage(200_001, 1)) == 200_001 * 6000 + 22_500
    assert claude.highest_cost(200_001, 0) == 200_001 * 6000
    assert claude.to_object(200_001)["output"] == 22_500_000
