"""How long to wait before an upstream is asked again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from random import random
from time import time
from typing import Final

INITIAL_DELAY: Final = 0.25
JITTER: Final = 0.1
"""Callers that were told the same time come back spread over so much more of it."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubles the wait with each try, up to `longest` seconds, and takes between half and all of it, by chance: callers
    that failed together must not come back together.
    """

    longest: float
    chance: Callable[[], float] = random

    def delay(self, retry: int, named: float | None) -> float | None:
        """The wait before the `retry`-th retry (from 0), at least what the upstream `named`; None where it named longer
        than anybody is to wait.
        """
        if named is None:
            return float(min(INITIAL_DELAY * 2**retry, self.longest) * (0.5 + self.chance() / 2))
        return named * (1 + JITTER * self.chance()) if named <= self.longest else None


def parse_retry_after(headers: Mapping[str, str], now: Callable[[], float] = time) -> float | None:
    """The seconds that an upstream asks its callers to wait: `retry-after-ms`, else `retry-after` in seconds or as a
    date (RFC 9110, 10.2.3). None where it names none, or nothing that can be understood.
    """
    for name, per_second in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        seconds = _to_number(headers.get(name, ""))
        if seconds is not None:
            return seconds / per_second
    return _until(headers.get("retry-after", ""), now)


def _to_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _until(date: str, now: Callable[[], float]) -> float | None:
    try:
        return max(parsedate_to_datetime(date).timestamp() - now(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None
