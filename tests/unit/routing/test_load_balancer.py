"""Load balancing by weight and by latency."""

from __future__ import annotations

from collections import Counter
from itertools import cycle

import pytest

from openai_compat.routing.load_balancer import DECAY_TIME, LeastLatency, PeakEWMA, WeightedRandom


def test_calls_are_distributed_by_weight() -> None:
    numbers = cycle(number / 100 for number in range(100))
    balancer = WeightedRandom({"a": 3, "b": 1, "never": 0}, uniform=lambda: next(numbers))
    orders = [balancer.order() for _ in range(300)]
    assert Counter(order[0] for order in orders)["never"] == 0
    assert Counter(order[0] for order in orders)["a"] == pytest.approx(225, abs=10)
    assert all(sorted(order) == ["a", "b", "never"] for order in orders)


def test_the_average_rises_at_once_and_falls_slowly() -> None:
    now = [100.0]
    latency = PeakEWMA(lambda: now[0])
    latency.add(0.1)
    latency.add(2.0)
    assert latency.value == 2.0
    now[0] += 1
    latency.add(0.1)
    assert 1.5 < latency.seconds < 2.0
    now[0] += 10 * DECAY_TIME
    assert latency.value < 0.01


def test_the_fastest_target_comes_first_until_it_has_more_calls() -> None:
    balancer = LeastLatency(["slow", "fast"], clock=lambda: 1.0, uniform=lambda: 0.5)
    balancer.on_first_byte("slow", 0.3)
    balancer.on_first_byte("fast", 0.1)
    assert balancer.order() == ["fast", "slow"]
    for _ in range(3):
        balancer.on_start("fast")
    assert balancer.order() == ["slow", "fast"]
    balancer.on_end("fast")
    balancer.on_end("fast")
    assert balancer.order() == ["fast", "slow"]


def test_an_unmeasured_target_comes_first() -> None:
    balancer = LeastLatency(["known", "new"], clock=lambda: 1.0, uniform=lambda: 0.5)
    balancer.on_first_byte("known", 0.01)
    assert balancer.order() == ["new", "known"]
    balancer.on_start("new")
    assert balancer.order() == ["known", "new"]


def test_calls_to_fallbacks_do_not_change_the_order() -> None:
    balancer = LeastLatency(["known", "new"], clock=lambda: 1.0, uniform=lambda: 0.5)
    balancer.on_first_byte("known", 0.01)
    balancer.on_start("fallback")
    balancer.on_first_byte("fallback", 1.0)
    balancer.on_end("fallback")
    assert balancer.order() == ["new", "known"]
