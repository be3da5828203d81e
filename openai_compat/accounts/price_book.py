"""Prices of the models that this server offers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Final

from openai_compat.core.prices import Price
from openai_compat.core.settings import ModelConfig
from openai_compat.routing.route import Target
from openai_compat.routing.router import Route

from .price_data import PriceData

FREE_KINDS: Final = frozenset({"echo", "huggingface", "llama_cpp"})
"""Kinds that run on this machine, which cost nothing unless their model config has a price."""
FREE: Final = Price()
_DEFAULT_URLS: Final = {"anthropic": "https://api.anthropic.com"}
"""Addresses of the kinds that need no `base_url`."""
_AMOUNTS: Final = [field.name for field in fields(Price) if field.name != "tiers"]


class PriceBook:
    """Prices by model config, else from the data set of public models."""

    def __init__(self) -> None:
        self._data = PriceData()

    def find(self, entry: ModelConfig, model: str, *, waits: bool = False) -> Price | None:
        """Return the price of `model` as it is served by `entry`, or None if it is unknown.

        Without `waits` it may be unknown for a second, while the data set is read.
        """
        if entry.price is not None:
            return entry.price
        if entry.kind in FREE_KINDS:
            return FREE
        url = entry.base_url or _DEFAULT_URLS.get(entry.kind)
        if not url:
            return None
        return self._data.find(url, entry.upstream_model or model, waits=waits)

    def highest(self, route: Route, *, waits: bool) -> Price | None:
        """Return the highest prices among the models that may answer, or None if one of them is unknown."""
        if route.plan is None:
            return self.find(route.backend.entry, route.model, waits=waits)
        found = [self.find(target.backend.entry, target.model, waits=waits) for target in _targets(route)]
        known = [price for price in found if price is not None]
        return _highest(known) if len(known) == len(found) else None


def _targets(route: Route) -> Iterator[Target]:
    if route.plan is not None:
        yield from route.plan.targets.values()
        yield from route.plan.fallbacks


def _highest(prices: list[Price]) -> Price:
    """Return the highest price of each kind. A price in tiers counts with the highest one."""
    flat = [tier for price in prices for tier in (price, *(tier for _, tier in price.tiers))]
    if len(prices) == 1:
        return prices[0]
    return Price(**{name: max(getattr(price, name) for price in flat) for name in _AMOUNTS})
