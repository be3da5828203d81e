"""Prices of models, and the cost of calls in whole nano-dollars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from .types import Usage

PRICE_KEYS: Final = ("input", "cached_input", "cache_write", "output", "request")
NANO: Final = 10**9
PICO: Final = 10**6
"""Pico-dollars for a token, at a price of one dollar for a million of them."""
_PICO_PER_NANO: Final = 1000


@dataclass(frozen=True, slots=True)
class Price:
    """Price of one token of each kind in pico-dollars, and of one request in nano-dollars.

    A price of a dollar for a million tokens is a million pico-dollars for one. `tiers` are the prices of calls with
    more input tokens than a number, in ascending order, and hold for all tokens of such a call.
    """

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    request: int = 0
    tiers: tuple[tuple[int, Price], ...] = ()

    def cost(self, usage: Usage) -> int:
        """Return the cost of a call in nano-dollars, rounded half up."""
        tier = self._tier(usage.prompt_tokens)
        if tier is not self:
            return tier.cost(usage)
        plain = max(usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens, 0)
        pico = (
            plain * self.input
            + usage.cached_tokens * self.cached_input
            + usage.cache_write_tokens * self.cache_write
            + usage.completion_tokens * self.output
        )
        return self.request + (pico + _PICO_PER_NANO // 2) // _PICO_PER_NANO

    def highest_cost(self, input_tokens: int, output_tokens: int) -> int:
        """Return the highest cost in nano-dollars of a call with these numbers of tokens."""
        tier = self._tier(input_tokens)
        if tier is not self:
            return tier.highest_cost(input_tokens, output_tokens)
        dearest = max(self.input, self.cache_write)
        return self.request + -(-(input_tokens * dearest + output_tokens * self.output) // _PICO_PER_NANO)

    def _tier(self, input_tokens: int) -> Price:
        """Return the price for a call with this number of input tokens."""
        tier = self
        for start, price in self.tiers:
            if input_tokens > start:
                tier = price
        return tier

    def to_object(self, input_tokens: int) -> dict[str, int]:
        """Return the price of a call with this number of input tokens, as it is kept with the call."""
        tier = self._tier(input_tokens)
        return {name: getattr(tier, name) for name in PRICE_KEYS}


def parse_price(dollars: Mapping[str, float]) -> Price:
    """Return the price that is given in dollars, for a million tokens of each kind and for one request.

    Cached input and writes to the cache have the price of other input by default.
    """
    plain = dollars.get("input", 0)
    return Price(
        input=_scale(plain, PICO),
        cached_input=_scale(dollars.get("cached_input", plain), PICO),
        cache_write=_scale(dollars.get("cache_write", plain), PICO),
        output=_scale(dollars.get("output", 0), PICO),
        request=_scale(dollars.get("request", 0), NANO),
    )


def _scale(dollars: float, factor: int) -> int:
    """Return an amount in a smaller unit. The text of a float has the digits that were written."""
    return int((Decimal(str(dollars)) * factor).to_integral_value())
