"""Amounts of money as whole nano-dollars, which add up exactly.

A token may cost less than a micro-dollar. With prices in dollars for a million tokens, one token costs `price` times
1000 nano-dollars.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any, Final

NANO: Final = 10**9
MAX_DOLLARS: Final = 10**9
"""Largest amount. All sums stay below the 64 bits of a database's integer."""


def parse_dollars(value: Any) -> int:
    """Return an amount in dollars, a number or a text such as `5` or `0.25`, as nano-dollars.

    Raises:
        ValueError: it is no amount. The message continues a sentence that begins with the name of the value.
    """
    try:
        dollars = Decimal(str(value)) if not isinstance(value, bool) else Decimal("NaN")
    except InvalidOperation:
        dollars = Decimal("NaN")
    if not (dollars.is_finite() and 0 <= dollars <= MAX_DOLLARS):
        raise ValueError(f"must be an amount in dollars between 0 and {MAX_DOLLARS}")
    return int((dollars * NANO).to_integral_value(ROUND_HALF_EVEN))


def to_dollars(nano: int) -> float:
    """Return an amount in dollars, for JSON."""
    return nano / NANO


def format_dollars(nano: int) -> str:
    """Return an amount for people, with two digits or as many as it needs."""
    text = f"{Decimal(nano) / NANO:.9f}".rstrip("0")
    whole, _, fraction = text.partition(".")
    return f"${whole}.{fraction.ljust(2, '0')}"
