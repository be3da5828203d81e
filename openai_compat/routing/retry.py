"""Exponential backoff between retries, and the `Retry-After` header."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from random import random
from time import time
from typing import Final

INITIAL_DELAY: Final = 0.25
JITTER: Final = 0.1
"""Maximum share by which a requested delay is extended, so that callers with the same one do not return together."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter.

    The delay doubles with each retry, up to `max_delay` seconds. Between half and all of it is used, so that callers
    that failed together do not return together. `uniform` returns random numbers in [0, 1).
    """

    max_delay: float
    uniform: Callable[[], float] = random

    def delay(self, retry: int, retry_after: float | None) -> float | None:
        """Return the seconds to wait before retry number `retry`, which counts from 0.

        The delay is at least `retry_after`, what the upstream requested. Return None if that is above `max_delay`.
        """
        if retry_after is None:
            return float(min(INITIAL_DELAY * 2**retry, self.max_delay) * (0.5 + self.uniform() / 2))
        return retry_after * (1 + JITTER * self.uniform()) if retry_after <= self.max_delay else None


def parse_retry_after(headers: Mapping[str, str], clock: Callable[[], float] = time) -> float | None:
    """Return the seconds that an upstream asks its clients to wait, or None if it names no valid time.

    Read from `retry-after-ms`, else from `retry-after` in seconds or as a date (RFC 9110, 10.2.3).
    """
    for name, units_per_second in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        number = _parse_number(headers.get(name, ""))
        if number is not None:
            return number / units_per_second
    return _seconds_until(headers.get("retry-after", ""), clock)


def _parse_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _seconds_until(date: str, clock: Callable[[], float]) -> float | None:
    try:
        return max(parsedate_to_datetime(date).timestamp() - clock(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None
