"""Cost of metrics, `python -m bench.metrics_cost`.

It measures the time of an observation, and a scrape of 500 models that four workers have counted: its CPU time, and the
longest time for which it stops other greenlets. It writes `results/metrics-cost.md`.
"""

# ruff: noqa: E402 - gevent patches the standard library before anything else is imported
from gevent import monkey

monkey.patch_all()

import gc
import time
from collections.abc import Callable
from statistics import median
from typing import Final

import gevent

from bench.machine import describe_hardware
from bench.paths import RESULTS
from openai_compat.core.observation import AttemptRecord, EndedRequest
from openai_compat.core.settings import ModelConfig
from openai_compat.core.turns import TimeSlices
from openai_compat.core.types import Usage
from openai_compat.state.worker_slots import SlotAssignment, open_slot
from openai_compat.telemetry.exposition import render
from openai_compat.telemetry.metrics import SLICE_SECONDS
from openai_compat.telemetry.request_metrics import RequestMetrics
from openai_compat.telemetry.series import SeriesTable
from openai_compat.telemetry.totals import TotalsReader

MODELS: Final = 500
WORKERS: Final = 4
CALLS: Final = 20_000
REPEATS: Final = 7
TICK: Final = 0.0005
OBSERVATION_GOAL_US: Final = 10
SCRAPE_GOAL_MS: Final = 20


def main() -> None:
    """Measure, print the figures, and write them."""
    assignment = SlotAssignment()
    metrics = [_start_worker(assignment.take()) for _ in range(WORKERS)]
    costs = {
        kind: _time_observation(metrics[0], _ended(0, is_streamed=kind == "stream")) for kind in ("chat", "stream")
    }
    for one in metrics:
        for model in range(MODELS):
            one.observe(_ended(model, is_streamed=True))
    gc.collect()
    gc.freeze()  # as the workers do
    totals = TotalsReader(assignment.descriptor)
    first = _measure_scrape(totals)
    later = [_measure_scrape(totals) for _ in range(REPEATS)]
    cpu, longest, size = (median(values) for values in zip(*later, strict=True))
    machine = describe_hardware()
    lines = [
        "# Metrics: cost of an observation and of a scrape",
        "",
        f"{machine['cores']} cores of {machine['cpu']}, Python {machine['python']}. {MODELS} models, {WORKERS} "
        f"workers, medians of {REPEATS}. Goals: at most {OBSERVATION_GOAL_US} µs for an observation, and at most "
        f"{SCRAPE_GOAL_MS} ms without a turn for other greenlets.",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| observation of a {kind} | {cost:.1f} µs |" for kind, cost in costs.items()),
        f"| scrape, longest time without a turn | {longest:.1f} ms |",
        f"| first scrape of a worker, longest time without a turn | {first[1]:.1f} ms |",
        f"| scrape, CPU time | {cpu:.0f} ms |",
        f"| scrape, size | {size / 1e6:.1f} MB |",
    ]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    (RESULTS / "metrics-cost.md").write_text(text)


def _start_worker(slot: str) -> RequestMetrics:
    own, _, _ = open_slot(slot)
    return RequestMetrics(SeriesTable(own), [f"model-{number}" for number in range(MODELS)])


def _ended(number: int, *, is_streamed: bool) -> EndedRequest:
    model = f"model-{number}"
    attempts = (AttemptRecord(model, 1.1, 1.4),)
    usage, served = Usage(380, 200), ModelConfig(model, "openai")
    return EndedRequest(
        "req_1", "chat/completions", 200, None, model, "openai", "", 1.0, 3.0, 1.5, is_streamed, usage, attempts,
        None, None, None, served, "", None,
    )  # fmt: skip


def _time_observation(metrics: RequestMetrics, ended: EndedRequest) -> float:
    """Return the microseconds of an observation."""

    def run() -> float:
        started = time.process_time()
        for _ in range(CALLS):
            metrics.observe(ended)
        return (time.process_time() - started) / CALLS * 1e6

    return median(run() for _ in range(REPEATS))


def _measure_scrape(totals: TotalsReader) -> tuple[float, float, float]:
    """Return the CPU time of a scrape and its longest time without a turn, in milliseconds, and its size in bytes."""
    started = time.process_time()
    size = 0

    def scrape() -> None:
        nonlocal size
        size = len(render(totals.read(TimeSlices(SLICE_SECONDS)), "text", TimeSlices(SLICE_SECONDS)))

    longest = _longest_wait(scrape)
    return (time.process_time() - started) * 1000, longest * 1000, float(size)


def _longest_wait(work: Callable[[], None]) -> float:
    """Return the longest time for which `work` lets no other greenlet run, in CPU time of this process."""
    longest = 0.0

    def tick() -> None:
        nonlocal longest
        while True:
            before = time.process_time()
            gevent.sleep(TICK)
            longest = max(longest, time.process_time() - before)

    ticker = gevent.spawn(tick)
    gevent.sleep(TICK)
    work()
    gevent.sleep(TICK)
    ticker.kill()
    return longest


if __name__ == "__main__":
    main()
