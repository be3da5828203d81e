"""Prices of the public models of OpenAI, Anthropic and others, from the data set of `genai-prices` (extra `prices`).

The package takes a second of CPU and 40 MB of memory, so that it is only ever imported in a process of its own
(`python -m openai_compat.accounts.price_data`), which answers one question and ends.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from decimal import Decimal
from importlib.util import find_spec
from typing import Any, Final

from openai_compat.core.prices import Price, parse_price

log = logging.getLogger(__name__)

TIMEOUT: Final = 30.0
MAX_REMEMBERED: Final = 1000
"""Models whose prices are remembered. It is limited because clients choose the names."""
KEYS: Final[Mapping[str, str]] = {
    "input": "input_mtok",
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "output": "output_mtok",
}
"""Our name of a price -> that of the data set. Both are dollars for a million tokens."""

Dollars = list[tuple[int, dict[str, float]]]
"""Prices in dollars, each with the number of input tokens above which it holds."""


class PriceData:
    """Lookup of prices by the URL of an API and the name of a model. Prices are remembered until the next start."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Price | None] = {}
        self._lock = threading.Lock()
        self._is_installed = find_spec("genai_prices") is not None

    def find(self, url: str, model: str, *, waits: bool) -> Price | None:
        """Return the price of a model, or None if the data set has none.

        The first look for a model takes a second. With `waits` the caller waits for it, and otherwise gets None.
        """
        key = (url, model)
        if key in self._known or not self._is_installed:
            return self._known.get(key)
        if waits:
            with self._lock:
                if key not in self._known:
                    self._remember(key, _ask(url, model))
        elif self._lock.acquire(blocking=False):  # clients choose the names, so that one is looked up at a time
            threading.Thread(target=self._look_up, args=(key,), daemon=True).start()
        return self._known.get(key)

    def _look_up(self, key: tuple[str, str]) -> None:
        """Look for a price, with the lock held by the caller."""
        try:
            self._remember(key, _ask(*key))
        finally:
            self._lock.release()

    def _remember(self, key: tuple[str, str], price: Price | None) -> None:
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[key] = price


def _ask(url: str, model: str) -> Price | None:
    """Return the price that another process finds."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "openai_compat.accounts.price_data"],
            input=json.dumps({"url": url, "model": model}),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
        return to_price(json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        log.warning("the price of a model cannot be looked up (%s)", type(error).__name__)
        return None


def to_price(dollars: Dollars) -> Price | None:
    """Return the price, the first one with the others as its tiers."""
    if not dollars:
        return None
    (_, first), *others = dollars
    base = parse_price(first)
    tiers = tuple((start, parse_price({**first, **tier})) for start, tier in others)
    return Price(base.input, base.cached_input, base.cache_write, base.output, tiers=tiers)


def look_up(url: str, model: str) -> Dollars:
    """Return the prices of a model in dollars. The list is empty if it is unknown."""
    from genai_prices import data_snapshot  # type: ignore[import-not-found, unused-ignore]

    snapshot: Any = data_snapshot.get_snapshot()
    try:
        _, found = snapshot.find_provider_model(model, None, None, url)
    except LookupError:
        return []
    prices = {name: getattr(found.prices, key, None) for name, key in KEYS.items()}
    starts = sorted({tier.start for price in prices.values() for tier in getattr(price, "tiers", ())})
    return [(start, dict(_prices_above(prices, start))) for start in (0, *starts)]


def _prices_above(prices: Mapping[str, Any], start: int) -> Iterable[tuple[str, float]]:
    """Yield the prices of calls with more than `start` input tokens."""
    for name, price in prices.items():
        tiers = [tier.price for tier in getattr(price, "tiers", ()) if tier.start <= start]
        base = price if isinstance(price, Decimal) else getattr(price, "base", None)
        dollars = tiers[-1] if tiers else base
        if dollars is not None:
            yield name, float(dollars)


if __name__ == "__main__":
    question = json.load(sys.stdin)
    print(json.dumps(look_up(question["url"], question["model"])))
