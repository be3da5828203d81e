"""Prices of the models that this server offers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from openai_compat.core.prices import Price
from openai_compat.core.settings import ModelConfig
from openai_compat.routing.route import Target
from openai_compat.routing.router import Route

FREE_KINDS: Final = frozenset({"echo", "huggingface"})
"""Kinds that run on this machine, which cost nothing unless their model config has a price."""
FREE: Final = Price()


class PriceBook:
    """Prices by model config."""

    def find(self, entry: ModelConfig, model: str) -> Price | None:
        """Return the price of `model` as it is served by `entry`, or None if it is unknown."""
        if entry.price is not None:
            return entry.price
        return FREE if entry.kind in FREE_KINDS else None

    def highest(self, route: Route) -> Price | None:
        """Return the highest prices among the models that may answer, or None if one of them is unknown."""
        if route.plan is None:
            return self.find(route.backend.entry, route.model)
        found = [self.find(target.backend.entry, target.model) for target in _targets(route)]
        known = [price for price in found if price is not None]
        return _highest(known) if len(known) == len(found) else None


def _targets(route: Route) -> Iterator[Target]:
    if route.plan is not None:
        yield from route.plan.targets.values()
        yield from route.plan.fallbacks


def _highest(prices: list[Price]) -> Price:
    return Price(
        max(price.input for price in prices),
        max(price.cached_input for price in prices),
        max(price.cache_write for price in prices),
        max(price.output for price in prices),
        max(price.request for price in prices),
    )
