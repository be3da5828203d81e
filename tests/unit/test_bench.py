"""What the benchmark concludes from its figures; taking them is not a test's work."""

from __future__ import annotations

from bench.regression.guard import judge
from bench.compare.targets import TARGETS, to_value


def test_the_guard_lets_small_growth_pass_and_names_large_growth() -> None:
    baseline = {"chat": 0.5, "stream": 1.0}

    assert judge({"chat": 0.57, "stream": 0.5}, baseline) == []
    [complaint] = judge({"chat": 0.58, "stream": 1.0}, baseline)
    assert complaint.startswith("chat: 0.580 of what the plain proxy executes, +16% against the 0.500")


def test_targets_are_judged_by_the_medians_of_one_run() -> None:
    cost = "closed/1kB/32/cpu_us"
    value = to_value({"ours": {cost: {"median": 480.0}}, "litellm": {cost: {"median": 9917.0}}, "nginx": {}})
    verdicts = {target.words: target.judge(target.read(value)) for target in TARGETS}

    assert verdicts["chat: LiteLLM's CPU per request over ours"] == "reached"
    assert verdicts["chat: our CPU per request over nginx's"] == "not measured"
