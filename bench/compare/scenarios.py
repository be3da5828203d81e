"""What is measured, a group at a time: each group starts the system afresh, warms it up, and gives figures by name.

Names are paths: `closed/1kB/32/cpu_us` is the CPU time per request of the 1 kB chat over 32 connections.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from bench.processes import Cores, core_busy_ns, wait_until
from bench.systems import Live

from . import load

Figures = dict[str, float]
RAMP_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 0.3
STREAM_LIMIT_SECONDS: Final = 120
MOST_FAILURES: Final = 0.001
"""The share above which a load's figures would be those of its failures."""


@dataclass(frozen=True, slots=True)
class StreamLoad:
    """So many streams at once, so many times, with an event every `interval_ms` from the upstream."""

    count: int
    rounds: int
    request: str = "stream"
    interval_ms: int = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    groups: tuple[str, ...] = ("requests", "latency", "streams", "bodies")
    repeats: int = 3
    warm_up_seconds: float = 2.0
    seconds: float = 3.0
    connections: tuple[int, ...] = (1, 32, 256)
    bodies: tuple[tuple[str, int], ...] = (("1kB", 32), ("40messages", 32), ("100kB", 32), ("5MB", 2))
    rates: tuple[int, ...] = (50, 400)
    streams: tuple[StreamLoad, ...] = (
        StreamLoad(1, 2),
        StreamLoad(100, 2),
        StreamLoad(500, 1),
        StreamLoad(1000, 1, "fast_stream", 10),
    )
    total_requests: int = 50_000
    total_seconds: float = 60.0
    has_stalls: bool = True


QUICK: Final = Plan(
    groups=("requests", "streams", "bodies"),
    warm_up_seconds=1.0,
    seconds=2.0,
    connections=(32,),
    bodies=(("1kB", 32), ("40messages", 32)),
    streams=(StreamLoad(100, 1),),
    total_requests=0,
    has_stalls=False,
)


@dataclass
class Bench:
    """One run: the plan, the cores, the upstream that everything leads to."""

    plan: Plan
    cores: Cores
    upstream: Live

    def upstream_requests(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.upstream.site.port}/", timeout=30) as answer:
            counts: dict[str, int] = json.load(answer)
            return counts["requests"]


@dataclass
class Span:
    """CPU time between two moments: of the system, and of whatever else ran on its core."""

    cpu_ns: int = 0
    foreign_share: float = 0.0
    seconds: float = 0.0
    requests: int = 0


@contextmanager
def measured(bench: Bench, live: Live) -> Iterator[Span]:
    span = Span()
    core = bench.cores.server
    requests, cpu, busy, began = (
        bench.upstream_requests(), live.running.cpu_ns(), core_busy_ns(core), time.monotonic(),
    )  # fmt: skip
    yield span
    span.requests = bench.upstream_requests() - requests
    span.cpu_ns = live.running.cpu_ns() - cpu
    span.seconds = time.monotonic() - began
    foreign = core_busy_ns(core) - busy - (span.cpu_ns if live.system else 0)
    span.foreign_share = max(0.0, foreign / 1e9 / span.seconds)


def closed_loop(bench: Bench, live: Live, request: str, connections: int, seconds: float) -> Figures:
    """CPU per request within the run, past its ramp, against the requests that the upstream saw in that time."""
    wrk = load.start_wrk(live.site.port, live.requests[request], connections, RAMP_SECONDS + seconds + 0.5)
    began = time.monotonic()
    memory: Figures = {}
    try:
        wait_until(began + RAMP_SECONDS)
        with measured(bench, live) as span:
            wait_until(began + RAMP_SECONDS + seconds)
        if live.system:
            memory = {"pss_mb": live.running.memory()["worker"] / 1e6}
        report = load.finish_wrk(wrk)
    finally:
        wrk.kill()
    if report["failures"] > MOST_FAILURES * report["requests"]:
        return {"failures": report["failures"], "requests": report["requests"]}
    return {
        "cpu_us": span.cpu_ns / 1000 / max(1, span.requests),
        "rps": (report["requests"] - report["failures"]) / report["seconds"],
        "p50_ms": report["p50_ms"],
        "p99_ms": report["p99_ms"],
        "failures": report["failures"],
        "requests": report["requests"],
        "foreign_share": span.foreign_share,
        **memory,
    }


def open_loop(live: Live, rate: float, seconds: float, request: str = "1kB") -> Figures:
    """Latency at a fixed rate, from the moment at which each request was due."""
    report = load.finish(load.start_open_loop(live.site.port, live.requests[request], rate, seconds))
    latency = report["latency_ms"]
    return {
        "p50_ms": latency["p50"],
        "p99_ms": latency["p99"],
        "max_ms": latency["max"],
        "failures": report["failures"] + report["unanswered"],
        "requests": report["requests"],
    }


def streams(bench: Bench, live: Live, wanted: StreamLoad) -> Figures:
    """The set-up and the end of the streams are part of the CPU time."""
    request = live.requests[wanted.request]
    with measured(bench, live) as span:
        report = load.run_streams(live.site.port, request, wanted.count, wanted.rounds, STREAM_LIMIT_SECONDS)
        time.sleep(SETTLE_SECONDS)
    figures: Figures = {"failures": report["failures"], "events": report["events"], "status": report["bad_status"]}
    if not report["events"]:
        return figures
    return figures | {
        "cpu_us": span.cpu_ns / 1000 / report["events"],
        "first_p50_ms": report["first_event_ms"]["p50"],
        "first_p99_ms": report["first_event_ms"]["p99"],
        "gap_p50_ms": report["gap_ms"]["p50"],
        "gap_p99_ms": report["gap_ms"]["p99"],
        "gap_max_ms": report["gap_ms"]["max"],
        "duration_p50_ms": report["duration_ms"]["p50"],
        "foreign_share": span.foreign_share,
    }


def stall(live: Live, seconds: float) -> Figures:
    """Small requests, 50 a second, while bodies of 5 MB arrive one after the other."""
    wrk = load.start_wrk(live.site.port, live.requests["5MB"], 1, seconds + 1)
    try:
        time.sleep(RAMP_SECONDS)
        figures = open_loop(live, 50, seconds - 0.5)
        figures["large"] = load.finish_wrk(wrk)["requests"]
    finally:
        wrk.kill()
    return figures


def peak_copies(live: Live) -> float:
    """By how many times its size a request of 5 MB raises the memory of all processes, at the peak."""
    request = live.requests["5MB"].read_bytes()
    live.running.forget_peaks()
    before = live.running.resident_bytes()
    load.send_once(live.site.port, request, 60)
    return (live.running.peak_bytes() - before) / len(request)


def top_up(live: Live, done: float, plan: Plan) -> float:
    """Sends what is missing of the plan's total, within its time; how many there have been by then."""
    until = time.monotonic() + plan.total_seconds
    while done < plan.total_requests and time.monotonic() < until:
        done += load.finish_wrk(load.start_wrk(live.site.port, live.requests["1kB"], 32, 5))["requests"]
    return done


# The groups. Each gets a system that has just answered its first request.


def measure_requests(bench: Bench, live: Live) -> Figures:
    plan = bench.plan
    figures: Figures = {}
    if live.system:
        time.sleep(1)
        figures["start_s"] = live.seconds_to_first_answer
        figures |= _memory(live, "idle")
    done = warm_up(bench, live)
    for connections in plan.connections:
        found = closed_loop(bench, live, "1kB", connections, plan.seconds)
        figures |= _below(f"closed/1kB/{connections}", found)
        done += found["requests"]
    if live.system and plan.total_requests:
        figures["memory/after_requests"] = top_up(live, done, plan)
        time.sleep(2)
        figures |= _memory(live, "after")
    return figures


def _memory(live: Live, when: str) -> Figures:
    found = live.running.memory()
    return {f"memory/{when}_worker_mb": found["worker"] / 1e6, f"memory/{when}_tree_mb": found["tree"] / 1e6}


def measure_latency(bench: Bench, live: Live) -> Figures:
    warm_up(bench, live)
    figures: Figures = {}
    for rate in bench.plan.rates:
        figures |= _below(f"open/{rate}", open_loop(live, rate, bench.plan.seconds + 2))
        if figures[f"open/{rate}/failures"]:
            break
    return figures


def measure_streams(bench: Bench, live: Live) -> Figures:
    warm_up(bench, live)
    load.run_streams(live.site.port, live.requests["fast_stream"], 5, 1, STREAM_LIMIT_SECONDS)
    figures: Figures = {}
    for wanted in bench.plan.streams:
        found = streams(bench, live, wanted)
        figures |= _below(f"streams/{wanted.count}", found)
        if not found["events"]:
            break
    return figures


def measure_bodies(bench: Bench, live: Live) -> Figures:
    figures: Figures = {}
    warm_up(bench, live)
    if live.system and bench.plan.has_stalls:
        figures["bodies/5MB/peak_copies"] = peak_copies(live)
    for request, connections in bench.plan.bodies:
        figures |= _below(f"bodies/{request}", closed_loop(bench, live, request, connections, bench.plan.seconds))
    if bench.plan.has_stalls:
        figures |= _below("stall", stall(live, bench.plan.seconds))
    return figures


def warm_up(bench: Bench, live: Live) -> float:
    wrk = load.start_wrk(live.site.port, live.requests["1kB"], 8, bench.plan.warm_up_seconds)
    return load.finish_wrk(wrk)["requests"]


def _below(path: str, figures: Figures) -> Figures:
    return {f"{path}/{name}": value for name, value in figures.items()}


GROUPS: Final[dict[str, Callable[[Bench, Live], Figures]]] = {
    "requests": measure_requests,
    "latency": measure_latency,
    "streams": measure_streams,
    "bodies": measure_bodies,
}
