"""Scenarios of the comparison in groups. Each group gets a freshly started system and returns figures by name.

Names are paths. `closed/1kB/32/cpu_us` is the CPU time per request of the 1 kB chat over 32 connections.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from bench.processes import Cores, core_busy_ns, sleep_until
from bench.systems import RunningSystem, send_once

from . import load

Figures = dict[str, float]
RAMP_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 0.3
STREAM_TIMEOUT: Final = 120
MAX_FAILURE_SHARE: Final = 0.001
"""Share of failed requests above which a load's figures would describe its failures."""


@dataclass(frozen=True, slots=True)
class StreamLoad:
    """`count` concurrent streams, `rounds` times, with an event every `interval_ms` from the upstream."""

    count: int
    rounds: int
    request: str = "stream"
    interval_ms: int = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """Extent of a run."""

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
    """One run with its plan, its cores, and the upstream that all systems forward to."""

    plan: Plan
    cores: Cores
    upstream: RunningSystem

    def upstream_requests(self) -> int:
        """Return how many requests the upstream has answered."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.upstream.site.port}/", timeout=30) as answer:
            counts: dict[str, int] = json.load(answer)
            return counts["requests"]


@dataclass
class CPUWindow:
    """CPU time of a system between two moments, and the share of its core that other work took."""

    cpu_ns: int = 0
    foreign_share: float = 0.0
    seconds: float = 0.0
    requests: int = 0


@contextmanager
def cpu_window(bench: Bench, target: RunningSystem) -> Iterator[CPUWindow]:
    """Measure the `with` block. The figures are set when it ends."""
    window = CPUWindow()
    core = bench.cores.server
    requests, cpu, busy, started = (
        bench.upstream_requests(), target.processes.cpu_ns(), core_busy_ns(core), time.monotonic(),
    )  # fmt: skip
    yield window
    window.requests = bench.upstream_requests() - requests
    window.cpu_ns = target.processes.cpu_ns() - cpu
    window.seconds = time.monotonic() - started
    foreign = core_busy_ns(core) - busy - (window.cpu_ns if target.system else 0)
    window.foreign_share = max(0.0, foreign / 1e9 / window.seconds)


def closed_loop(bench: Bench, target: RunningSystem, request: str, connections: int, seconds: float) -> Figures:
    """Return throughput, latency and CPU time per request of a closed loop.

    CPU time is taken after the ramp and divided by the requests that the upstream answered in that time.
    """
    wrk = load.start_wrk(target.site.port, target.requests[request], connections, RAMP_SECONDS + seconds + 0.5)
    started = time.monotonic()
    memory: Figures = {}
    try:
        sleep_until(started + RAMP_SECONDS)
        with cpu_window(bench, target) as window:
            sleep_until(started + RAMP_SECONDS + seconds)
        if target.system:
            memory = {"pss_mb": target.processes.memory()["worker"] / 1e6}
        report = load.finish_wrk(wrk)
    finally:
        wrk.kill()
    if report["failures"] > MAX_FAILURE_SHARE * report["requests"]:
        return {"failures": report["failures"], "requests": report["requests"]}
    return {
        "cpu_us": window.cpu_ns / 1000 / max(1, window.requests),
        "rps": (report["requests"] - report["failures"]) / report["seconds"],
        "p50_ms": report["p50_ms"],
        "p99_ms": report["p99_ms"],
        "failures": report["failures"],
        "requests": report["requests"],
        "foreign_share": window.foreign_share,
        **memory,
    }


def open_loop(target: RunningSystem, rate: float, seconds: float, request: str = "1kB") -> Figures:
    """Return latencies at a fixed rate, counted from the moment at which each request was due."""
    report = load.finish(load.start_open_loop(target.site.port, target.requests[request], rate, seconds))
    latency = report["latency_ms"]
    return {
        "p50_ms": latency["p50"],
        "p99_ms": latency["p99"],
        "max_ms": latency["max"],
        "failures": report["failures"] + report["unanswered"],
        "requests": report["requests"],
    }


def streams(bench: Bench, target: RunningSystem, wanted: StreamLoad) -> Figures:
    """Return the figures of concurrent streams. CPU time includes their setup and their end."""
    request = target.requests[wanted.request]
    with cpu_window(bench, target) as window:
        report = load.run_streams(target.site.port, request, wanted.count, wanted.rounds, STREAM_TIMEOUT)
        time.sleep(SETTLE_SECONDS)
    figures: Figures = {"failures": report["failures"], "events": report["events"], "status": report["bad_status"]}
    if not report["events"]:
        return figures
    return figures | {
        "cpu_us": window.cpu_ns / 1000 / report["events"],
        "first_p50_ms": report["first_event_ms"]["p50"],
        "first_p99_ms": report["first_event_ms"]["p99"],
        "gap_p50_ms": report["gap_ms"]["p50"],
        "gap_p99_ms": report["gap_ms"]["p99"],
        "gap_max_ms": report["gap_ms"]["max"],
        "duration_p50_ms": report["duration_ms"]["p50"],
        "foreign_share": window.foreign_share,
    }


def stall(target: RunningSystem, seconds: float) -> Figures:
    """Return latencies of 50 small requests a second while bodies of 5 MB arrive one after the other."""
    wrk = load.start_wrk(target.site.port, target.requests["5MB"], 1, seconds + 1)
    try:
        time.sleep(RAMP_SECONDS)
        figures = open_loop(target, 50, seconds - 0.5)
        figures["large"] = load.finish_wrk(wrk)["requests"]
    finally:
        wrk.kill()
    return figures


def peak_copies(target: RunningSystem) -> float:
    """Return the peak memory that a request of 5 MB adds to all processes, as a multiple of its size."""
    request = target.requests["5MB"].read_bytes()
    target.processes.reset_peaks()
    before = target.processes.resident_bytes()
    send_once(target.site.port, request, 60)
    return (target.processes.peak_bytes() - before) / len(request)


def complete_total(target: RunningSystem, done: float, plan: Plan) -> float:
    """Send what is missing of the plan's total within its time limit, and return how many were sent in all."""
    deadline = time.monotonic() + plan.total_seconds
    while done < plan.total_requests and time.monotonic() < deadline:
        done += load.finish_wrk(load.start_wrk(target.site.port, target.requests["1kB"], 32, 5))["requests"]
    return done


# The groups. Each receives a system that has just answered its first request.


def measure_requests(bench: Bench, target: RunningSystem) -> Figures:
    """Measure startup, closed loops of small chats, and memory before and after them."""
    plan = bench.plan
    figures: Figures = {}
    if target.system:
        time.sleep(1)
        figures["start_s"] = target.startup_seconds
        figures |= _memory(target, "idle")
    done = warm_up(bench, target)
    for connections in plan.connections:
        found = closed_loop(bench, target, "1kB", connections, plan.seconds)
        figures |= _with_prefix(f"closed/1kB/{connections}", found)
        done += found["requests"]
    if target.system and plan.total_requests:
        figures["memory/after_requests"] = complete_total(target, done, plan)
        time.sleep(2)
        figures |= _memory(target, "after")
    return figures


def _memory(target: RunningSystem, when: str) -> Figures:
    found = target.processes.memory()
    return {f"memory/{when}_worker_mb": found["worker"] / 1e6, f"memory/{when}_tree_mb": found["tree"] / 1e6}


def measure_latency(bench: Bench, target: RunningSystem) -> Figures:
    """Measure open loops at rising rates, up to the first one with failures."""
    warm_up(bench, target)
    figures: Figures = {}
    for rate in bench.plan.rates:
        figures |= _with_prefix(f"open/{rate}", open_loop(target, rate, bench.plan.seconds + 2))
        if figures[f"open/{rate}/failures"]:
            break
    return figures


def measure_streams(bench: Bench, target: RunningSystem) -> Figures:
    """Measure rising numbers of concurrent streams, up to the first load without any event."""
    warm_up(bench, target)
    load.run_streams(target.site.port, target.requests["fast_stream"], 5, 1, STREAM_TIMEOUT)
    figures: Figures = {}
    for wanted in bench.plan.streams:
        found = streams(bench, target, wanted)
        figures |= _with_prefix(f"streams/{wanted.count}", found)
        if not found["events"]:
            break
    return figures


def measure_bodies(bench: Bench, target: RunningSystem) -> Figures:
    """Measure closed loops of larger bodies, and what a body of 5 MB costs in memory and delays."""
    figures: Figures = {}
    warm_up(bench, target)
    if target.system and bench.plan.has_stalls:
        figures["bodies/5MB/peak_copies"] = peak_copies(target)
    for request, connections in bench.plan.bodies:
        found = closed_loop(bench, target, request, connections, bench.plan.seconds)
        figures |= _with_prefix(f"bodies/{request}", found)
    if bench.plan.has_stalls:
        figures |= _with_prefix("stall", stall(target, bench.plan.seconds))
    return figures


def warm_up(bench: Bench, target: RunningSystem) -> float:
    """Send small chats for the plan's warm-up time and return how many were answered."""
    wrk = load.start_wrk(target.site.port, target.requests["1kB"], 8, bench.plan.warm_up_seconds)
    return load.finish_wrk(wrk)["requests"]


def _with_prefix(path: str, figures: Figures) -> Figures:
    return {f"{path}/{name}": value for name, value in figures.items()}


GROUPS: Final[dict[str, Callable[[Bench, RunningSystem], Figures]]] = {
    "requests": measure_requests,
    "latency": measure_latency,
    "streams": measure_streams,
    "bodies": measure_bodies,
}
