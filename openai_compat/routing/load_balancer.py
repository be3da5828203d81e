"""Load balancing between the targets of a route."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import exp
from random import random
from time import time
from typing import Final

DECAY_TIME: Final = 10.0
"""Seconds after which a measurement has the weight 1/e."""


class LoadBalancer(ABC):
    """Strategy that orders the targets of a route, by name, for each call.

    It is notified of the calls to them and to the fallbacks.
    """

    @abstractmethod
    def order(self) -> Sequence[str]:
        """Return all names in the order in which a call tries them."""

    def on_start(self, name: str) -> None:  # noqa: B027 - optional
        """Record the start of a call to `name`."""

    def on_first_byte(self, name: str, latency: float) -> None:  # noqa: B027 - optional
        """Record that the first token, or a complete response, arrived after `latency` seconds."""

    def on_end(self, name: str) -> None:  # noqa: B027 - optional
        """Record the end of a call to `name`, successful or not."""


class WeightedRandom(LoadBalancer):
    """Random order, in proportion to the weights.

    Each position is drawn from the names that are left. `uniform` returns random numbers in [0, 1).
    """

    def __init__(self, weights: Mapping[str, float], uniform: Callable[[], float] = random) -> None:
        self._weights = dict(weights)
        self._uniform = uniform

    def order(self) -> Sequence[str]:
        remaining = dict(self._weights)
        drawn = []
        while remaining:
            name = self._draw(remaining)
            drawn.append(name)
            del remaining[name]
        return drawn

    def _draw(self, weights: Mapping[str, float]) -> str:
        threshold = self._uniform() * sum(weights.values())
        for name, weight in weights.items():
            threshold -= weight
            if threshold < 0:
                return name
        return next(iter(weights))  # all weights are zero


class PeakEWMA:
    """Moving average of latencies that rises at once and falls slowly (the "peak EWMA" of Finagle's balancers).

    A target that becomes slow therefore loses calls at once. The value decays while nothing is measured, so that every
    target is tried again after some time. `seconds` is the average at the Unix time `measured_at`.
    """

    def __init__(self, clock: Callable[[], float] = time) -> None:
        self._clock = clock
        self.seconds = 0.0
        self.measured_at = 0.0

    def add(self, seconds: float) -> None:
        """Add a measurement."""
        now = self._clock()
        weight = exp(-max(now - self.measured_at, 0.0) / DECAY_TIME)
        self.seconds = max(seconds, self.seconds * weight + seconds * (1 - weight))
        self.measured_at = now

    def merge(self, seconds: float, measured_at: float) -> None:
        """Replace the average with the one of another worker, if that is newer."""
        if measured_at > self.measured_at:
            self.seconds, self.measured_at = seconds, measured_at

    @property
    def value(self) -> float:
        """The average in seconds, decayed to the current time."""
        return self.seconds * exp(-max(self._clock() - self.measured_at, 0.0) / DECAY_TIME)


class LeastLatency(LoadBalancer):
    """Order by latency times the number of concurrent calls, this one included. Unmeasured targets come first."""

    def __init__(
        self, names: Sequence[str], clock: Callable[[], float] = time, uniform: Callable[[], float] = random
    ) -> None:
        self.latencies = {name: PeakEWMA(clock) for name in names}
        self._active_calls = dict.fromkeys(names, 0)
        self._uniform = uniform

    def order(self) -> Sequence[str]:
        return sorted(self.latencies, key=lambda name: (self._cost(name), self._uniform()))

    def _cost(self, name: str) -> float:
        calls, latency = self._active_calls[name], self.latencies[name].value
        # An unmeasured target is assumed to take one second for each active call. Otherwise all calls would try it.
        return calls if not self.latencies[name].measured_at else latency * (calls + 1)

    def on_start(self, name: str) -> None:
        if name in self._active_calls:
            self._active_calls[name] += 1

    def on_first_byte(self, name: str, latency: float) -> None:
        if name in self.latencies:
            self.latencies[name].add(latency)

    def on_end(self, name: str) -> None:
        if name in self._active_calls:
            self._active_calls[name] -= 1
