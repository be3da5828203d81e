"""Which of several targets gets a call first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import exp
from random import random
from time import time
from typing import Final

DECAY_TIME: Final = 10.0
"""What was measured so long ago counts a third (1/e)."""


class LoadBalancer(ABC):
    """Puts targets, by their names, into the order in which a call asks them. Of the calls to
    fallbacks it hears too.
    """

    @abstractmethod
    def order(self) -> Sequence[str]:
        """All names, the one to ask first in front."""

    def began(self, name: str) -> None:  # noqa: B027 - most need not know
        """A call to `name` is on its way."""

    def answered(self, name: str, seconds: float) -> None:  # noqa: B027
        """It had its first token, or its whole answer, after `seconds`."""

    def ended(self, name: str) -> None:  # noqa: B027
        """The call to `name` is over, whatever came of it."""


class WeightedRandom(LoadBalancer):
    """By chance, in proportion to the weights; what is left over follows, drawn in the same way."""

    def __init__(self, weights: Mapping[str, float], chance: Callable[[], float] = random) -> None:
        self._weights = dict(weights)
        self._chance = chance

    def order(self) -> Sequence[str]:
        left = dict(self._weights)
        drawn = []
        while left:
            name = self._draw(left)
            drawn.append(name)
            del left[name]
        return drawn

    def _draw(self, weights: Mapping[str, float]) -> str:
        mark = self._chance() * sum(weights.values())
        for name, weight in weights.items():
            mark -= weight
            if mark < 0:
                return name
        return next(iter(weights))  # all that is left weighs nothing


class PeakEWMA:
    """A moving average that follows a slower answer at once and a faster one slowly, so that a target in trouble is
    left early (the "peak EWMA" of Finagle's balancers). It fades while nothing is measured: every target is tried again
    one day.
    """

    def __init__(self, clock: Callable[[], float] = time) -> None:
        self._clock = clock
        self.seconds = 0.0
        self.measured_at = 0.0

    def add(self, seconds: float) -> None:
        now = self._clock()
        share = exp(-max(now - self.measured_at, 0.0) / DECAY_TIME)
        self.seconds = max(seconds, self.seconds * share + seconds * (1 - share))
        self.measured_at = now

    def merge(self, seconds: float, measured_at: float) -> None:
        """Takes over what another worker has measured, where that is newer."""
        if measured_at > self.measured_at:
            self.seconds, self.measured_at = seconds, measured_at

    @property
    def now(self) -> float:
        return self.seconds * exp(-max(self._clock() - self.measured_at, 0.0) / DECAY_TIME)


class LeastLatency(LoadBalancer):
    """The one with the least latency times the calls it would then have; one that was never measured comes first."""

    def __init__(
        self, names: Sequence[str], clock: Callable[[], float] = time, chance: Callable[[], float] = random
    ) -> None:
        self.latencies = {name: PeakEWMA(clock) for name in names}
        self._calls = dict.fromkeys(names, 0)
        self._chance = chance

    def order(self) -> Sequence[str]:
        return sorted(self.latencies, key=lambda name: (self._cost(name), self._chance()))

    def _cost(self, name: str) -> float:
        calls, seconds = self._calls[name], self.latencies[name].now
        # Unmeasured, each call that is under way already is taken for a second: not all callers try the same one.
        return calls if not self.latencies[name].measured_at else seconds * (calls + 1)

    def began(self, name: str) -> None:
        if name in self._calls:
            self._calls[name] += 1

    def answered(self, name: str, seconds: float) -> None:
        if name in self.latencies:
            self.latencies[name].add(seconds)

    def ended(self, name: str) -> None:
        if name in self._calls:
            self._calls[name] -= 1
