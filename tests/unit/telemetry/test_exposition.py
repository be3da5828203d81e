"""The two text formats of metrics."""

from __future__ import annotations

from openai_compat.telemetry.exposition import render_family
from openai_compat.telemetry.families import Family

CALLS = Family("calls_total", "counter", ("model", "error"), "Calls \\ so far.")
TIMES = Family("seconds", "histogram", ("model",), "Time.", (0.5, 1.0))


def test_a_counter_in_both_formats() -> None:
    totals = {("b", ""): [2.0], ("a", "x"): [1.5]}
    lines = 'calls_total{model="a",error="x"} 1.5\ncalls_total{model="b"} 2\n'
    assert "".join(render_family(CALLS, totals, "text")) == (
        f"# HELP calls_total Calls \\\\ so far.\n# TYPE calls_total counter\n{lines}"
    )
    assert "".join(render_family(CALLS, totals, "openmetrics")) == (
        f"# HELP calls Calls \\\\ so far.\n# TYPE calls counter\n{lines}"
    )


def test_the_buckets_of_a_histogram_are_cumulative() -> None:
    assert "".join(render_family(TIMES, {("a",): [2.0, 1.0, 4.0, 9.25]}, "text")).splitlines()[2:] == [
        'seconds_bucket{model="a",le="0.5"} 2',
        'seconds_bucket{model="a",le="1"} 3',
        'seconds_bucket{model="a",le="+Inf"} 7',
        'seconds_sum{model="a"} 9.25',
        'seconds_count{model="a"} 7',
    ]


def test_a_label_cannot_end_its_line() -> None:
    (_, line) = render_family(CALLS, {('a"} 1\nfake 2', "\\"): [1.0]}, "text")
    assert line == 'calls_total{model="a\\"} 1\\nfake 2",error="\\\\"} 1\n'


def test_a_metric_without_series_is_left_out() -> None:
    assert list(render_family(CALLS, {}, "text")) == []
