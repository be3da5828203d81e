"""Prices of models, and the cost of calls in whole nano-dollars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from .types import Usage

PRICE_KEYS: Final = ("input", "cached_input", "cache_write", "output", "request")
MAX_PRICE: Final = 1_000_000
_PICO_PER_NANO: Final = 1000


@dataclass(frozen=True, slots=True)
class Price:
    """Price of one token of each kind in pico-dollars, and of one request in nano-dollars.

    A price of a dollar for a million tokens is a million pico-dollars for one.
    """

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    request: int = 0

    def cost(self, usage: Usage) -> int:
        """Return the cost of a call in nano-dollars, rounded half up."""
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
        dearest = max(self.input, self.cache_write)
        return self.request + -(-(input_tokens * dearest + output_tokens * self.output) // _PICO_PER_NANO)

    def to_object(self) -> dict[str, int]:
        """Return the price as it is kept with each call."""
        return {name: getattr(self, name) for name in PRICE_KEYS}


def parse_price(value: Mapping[str, Any]) -> Price:
    """Return the price that a model config gives in dollars, for a million tokens or for one request.

    Cached input and writes to the cache have the price of other input by default.

    Raises:
        ValueError: the message continues a sentence that begins with `price`.
    """
    for name in value:
        if name not in PRICE_KEYS:
            raise ValueError(f"has the unknown key '{name}'; known are {', '.join(PRICE_KEYS)}")
    dollars = {name: _parse_dollars(name, amount) for name, amount in value.items()}
    plain = dollars.get("input", Decimal(0))
    return Price(
        input=int(plain * 10**6),
        cached_input=int(dollars.get("cached_input", plain) * 10**6),
        cache_write=int(dollars.get("cache_write", plain) * 10**6),
        output=int(dollars.get("output", Decimal(0)) * 10**6),
        request=int(dollars.get("request", Decimal(0)) * 10**9),
    )


def _parse_dollars(name: str, amount: Any) -> Decimal:
    try:
        dollars = Decimal(str(amount)) if not isinstance(amount, bool) else Decimal("NaN")
    except InvalidOperation:
        dollars = Decimal("NaN")
    if not (dollars.is_finite() and 0 <= dollars <= MAX_PRICE):
        raise ValueError(f"has a '{name}' that is no amount in dollars between 0 and {MAX_PRICE}")
    return dollars
