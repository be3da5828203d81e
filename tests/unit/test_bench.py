"""Conclusions that the benchmarks draw from their figures. The tests take no measurements."""

from __future__ import annotations

from bench.compare.targets import TARGETS, to_value
from bench.regression.guard import find_regressions


def test_guard_allows_growth_of_5_percent_and_reports_more() -> None:
    accepted = {"chat": 0.5, "stream": 1.0}

    assert find_regressions({"chat": 0.52, "stream": 0.5}, accepted) == []
    [message] = find_regressions({"chat": 0.53, "stream": 1.0}, accepted)
    assert message.startswith("chat: 0.530 times the instructions of the baseline proxy, +6% against the 0.500")


def test_targets_are_evaluated_on_medians_of_one_run() -> None:
    cost = "closed/1kB/32/cpu_us"
    value = to_value({"ours": {cost: {"median": 480.0}}, "litellm": {cost: {"median": 9917.0}}, "nginx": {}})
    statuses = {target.title: target.status(target.read(value)) for target in TARGETS}

    assert statuses["chat: LiteLLM's CPU per request over ours"] == "reached"
    assert statuses["chat: our CPU per request over nginx's"] == "not measured"
