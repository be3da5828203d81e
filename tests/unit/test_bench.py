"""Conclusions that the benchmarks draw from their figures. The tests take no measurements."""

from __future__ import annotations

import json
from pathlib import Path

from bench.compare.targets import TARGETS, to_value
from bench.costs import MEASURED, PLAIN, Chart, write_charts
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


def test_costs_are_written_as_figures_and_as_a_plot(tmp_path: Path) -> None:
    chart = Chart("stored", "CPU time (µs)", {"not stored": 640.25, "SQLite": 1094.0}, {"SQLite": MEASURED})
    write_charts("storage", [chart], tmp_path)

    result = json.loads((tmp_path / "storage.json").read_text())
    assert result["charts"]["stored"]["figures"] == {"not stored": 640.25, "SQLite": 1094.0}
    plot = (tmp_path / "stored.svg").read_text()
    for text in ("CPU time (µs)", ">not stored<", ">640<", ">1,094<", MEASURED, PLAIN):
        assert text in plot
