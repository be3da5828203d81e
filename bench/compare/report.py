"""Results of a comparison as JSON and as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from .run import DIRECT
from .scenarios import Plan
from .targets import CHAT, EVENT, TARGETS, Value, to_value

Result = dict[str, Any]
NO_VALUE: Final = "-"


def to_result(
    name: str,
    machine: Mapping[str, Any],
    plan: Plan,
    known: Mapping[str, Mapping[str, str]],
    figures: Mapping[str, Mapping[str, Any]],
    failures: Mapping[str, list[str]],
) -> Result:
    """Return what is written as JSON."""
    return {
        "name": name,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine,
        "plan": asdict(plan),
        "systems": known,
        "figures": figures,
        "faults": failures,
    }


def to_markdown(result: Result) -> str:
    """Return all tables of a run. Those without any figure are omitted."""
    value = to_value(result["figures"])
    names = [name for name in result["systems"] if name in result["figures"]]
    parts = [
        _machine(result),
        _chat(result, value, names),
        _streams(result, value, names),
        _latency(result, value, names),
        _bodies(result, value, names),
        _memory(result, value, names),
        _targets(value),
        _failures(result),
        _noise(result),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_summary(result: Result) -> str:
    """Return the table of the most important figures, one system a line."""
    value = to_value(result["figures"])
    heads = [
        "CPU per chat", "times nginx", "chats/s", "CPU per streamed event", "first token of 100 streams, p50",
        "memory, idle", "start",
    ]  # fmt: skip
    base = value("nginx", CHAT)
    rows = []
    for name in result["systems"]:
        cpu, start = value(name, CHAT), value(name, "start_s")
        if cpu is None:
            continue
        times = cpu / base if base else None
        row = [_title(result, name), _micro(cpu), _times(times), _count(value(name, "closed/1kB/32/rps"))]
        row += [_micro(value(name, EVENT)), _milli(value(name, "streams/100/first_p50_ms"))]
        row += [_mega(value(name, "memory/idle_worker_mb")), NO_VALUE if start is None else f"{start:.1f} s"]
        rows.append(row)
    return f"{_conditions(result)}\n\n{_table(heads, rows)}"


def to_targets(result: Result) -> str:
    """Return the table of the performance targets."""
    return f"{_conditions(result)}\n\n{_targets_table(to_value(result['figures']))}"


def _machine(result: Result) -> str:
    versions = [
        f"- {system['title']}: {system['version']}" for system in result["systems"].values() if "version" in system
    ]
    return "\n".join([_conditions(result), "", *versions])


def _conditions(result: Result) -> str:
    machine = result["machine"]
    virtual = ", virtual machine" if machine["hypervisor"] else ""
    cores = f"{machine['cores']} cores of {machine['cpu']} ({machine['memory_gb']:g} GiB{virtual})"
    software = f"Linux {machine['kernel']}, Python {machine['python']}"
    repeats = result["plan"]["repeats"]
    samples = f"medians of {repeats}" if repeats > 1 else "one pass"
    return f"Measured {result['date']} on {cores}, {software}, {samples}."


def _chat(result: Result, value: Value, names: list[str]) -> str:
    connections = [n for n in result["plan"]["connections"] if _any(value, names, f"closed/1kB/{n}/rps")]
    if not connections:
        return ""
    shown = 32 if 32 in connections else connections[-1]
    cost = f"closed/1kB/{shown}/cpu_us"
    heads = [f"CPU per request, {shown} connections", "times nginx"]
    heads += [f"requests/s, {n} connection{'s' if n > 1 else ''}" for n in connections]
    base = value("nginx", cost)
    rows = []
    for name in [DIRECT, *names]:
        cpu = value(name, cost) if name != DIRECT else None
        times = cpu / base if cpu is not None and base else None
        rates = [_count(value(name, f"closed/1kB/{n}/rps")) for n in connections]
        rows.append([_title(result, name), _micro(cpu), _times(times), *rates])
    return _section("Chat, not streamed, a body of 1 kB with two messages", _table(heads, rows))


def _streams(result: Result, value: Value, names: list[str]) -> str:
    parts = []
    for wanted in result["plan"]["streams"]:
        count = wanted["count"]
        path = f"streams/{count}"
        if not _any(value, names, f"{path}/failures"):
            continue
        heads = ["CPU per event", "first token p50", "p99", "gap p50", "p99", "max", "failed"]
        rows = [
            [
                _title(result, name),
                _micro(value(name, f"{path}/cpu_us")) if name != DIRECT else NO_VALUE,
                *(
                    _milli(value(name, f"{path}/{figure}_ms"))
                    for figure in ("first_p50", "first_p99", "gap_p50", "gap_p99", "gap_max")
                ),
                _failed(value, name, path),
            ]
            for name in [DIRECT, *names]
        ]
        title = f"{count:,} streams at once" if count > 1 else "One stream"
        parts.append(f"**{title}**, 100 events each, one every {wanted['interval_ms']} ms\n\n{_table(heads, rows)}")
    return _section("Streams", "\n\n".join(parts)) if parts else ""


def _failed(value: Value, name: str, path: str) -> str:
    failures, status = value(name, f"{path}/failures"), value(name, f"{path}/status")
    if failures and status and status != 200:
        return f"{failures:,.0f} (status {status:.0f})" if status > 0 else f"{failures:,.0f}"
    return _count(failures)


def _latency(result: Result, value: Value, names: list[str]) -> str:
    rates = [rate for rate in result["plan"]["rates"] if _any(value, names, f"open/{rate}/p50_ms")]
    if not rates:
        return ""
    heads = [f"{figure} at {rate}/s" for rate in rates for figure in ("p50", "p99", "added p50", "added p99")]
    rows = []
    for name in [DIRECT, *names]:
        row = [_title(result, name)]
        for rate in rates:
            if value(name, f"open/{rate}/failures"):
                row += ["overloaded", "", "", ""]
                continue
            found = [value(name, f"open/{rate}/{figure}") for figure in ("p50_ms", "p99_ms")]
            direct = [value(DIRECT, f"open/{rate}/{figure}") for figure in ("p50_ms", "p99_ms")]
            added = [a - b if a is not None and b is not None else None for a, b in zip(found, direct, strict=True)]
            row += [_milli(number) for number in found] + [
                _milli(number) if name != DIRECT else NO_VALUE for number in added
            ]
        rows.append(row)
    return _section("Latency at a fixed rate (open loop, counted from when a request was due)", _table(heads, rows))


def _bodies(result: Result, value: Value, names: list[str]) -> str:
    kinds = [kind for kind, _n in result["plan"]["bodies"] if _any(value, names, f"bodies/{kind}/cpu_us")]
    if not kinds:
        return ""
    titles = {
        "1kB": "2 messages, 1 kB",
        "40messages": "40 messages, 6 kB",
        "100kB": "60 messages, 100 kB",
        "5MB": "image, 5 MB",
    }
    heads = [f"CPU: {titles[kind]}" for kind in kinds]
    has_stalls = _any(value, names, "stall/p99_ms")
    if has_stalls:
        heads += ["peak memory of 5 MB, in bodies", "concurrent small requests p50", "p99"]
    rows = []
    for name in names:
        row = [_title(result, name)] + [_micro(value(name, f"bodies/{kind}/cpu_us")) for kind in kinds]
        if has_stalls:
            row += [_times(value(name, "bodies/5MB/peak_copies")), _milli(value(name, "stall/p50_ms"))]
            row += [_milli(value(name, "stall/p99_ms"))]
        rows.append(row)
    return _section("Larger bodies, CPU per request", _table(heads, rows))


def _memory(result: Result, value: Value, names: list[str]) -> str:
    if not _any(value, names, "memory/idle_worker_mb"):
        return ""
    connections = result["plan"]["connections"][-1]
    heads = [
        "start to first answer",
        "worker, idle",
        f"at {connections} connections",
        "after the requests",
        "number of requests",
    ]
    heads += ["all processes, idle"]
    rows = []
    for name in names:
        figures = ["memory/idle_worker_mb", f"closed/1kB/{connections}/pss_mb", "memory/after_worker_mb"]
        start = value(name, "start_s")
        row = [_title(result, name), NO_VALUE if start is None else f"{start:.2f} s"]
        row += [_mega(value(name, figure)) for figure in figures]
        row += [_count(value(name, "memory/after_requests")), _mega(value(name, "memory/idle_tree_mb"))]
        rows.append(row)
    return _section("Start and memory (PSS)", _table(heads, rows))


def _targets(value: Value) -> str:
    return _section("Targets (stretch goals in parentheses)", _targets_table(value))


def _targets_table(value: Value) -> str:
    rows = []
    for target in TARGETS:
        measured = target.read(value)
        shown = NO_VALUE if measured is None else f"{measured:,.2f} {target.unit}".strip()
        rows.append([target.title, target.bound, shown, target.status(measured)])
    return _table(["target", "measured", ""], rows)


def _failures(result: Result) -> str:
    lines = [f"- {system['title']}: {system['absent']}" for system in result["systems"].values() if "absent" in system]
    lines += [
        f"- {_title(result, name)}: {failure}" for name, failures in result["faults"].items() for failure in failures
    ]
    lines += [
        f"- {_title(result, name)}: {found['median']:,.0f} failures in {figure.removesuffix('/failures')}"
        for name, figures in result["figures"].items()
        for figure, found in figures.items()
        if figure.endswith("/failures") and found["median"]
    ]
    return _section("Absent systems and failures", "\n".join(lines)) if lines else ""


def _noise(result: Result) -> str:
    """Return the share of the measured time in which the server's core did other work."""
    shares = [
        sample
        for name, figures in result["figures"].items()
        if name != DIRECT
        for figure, found in figures.items()
        if figure.endswith("foreign_share")
        for sample in found["samples"]
    ]
    if not shares:
        return ""
    return (
        "Other work on the server's core during the measurements (the kernel and other processes): "
        f"median {statistics.median(shares):.0%} of the time, maximum {max(shares):.0%}."
    )


def _title(result: Result, name: str) -> str:
    if name == DIRECT:
        return "*upstream itself*"
    title: str = result["systems"][name]["title"]
    return f"**{title}**" if name == "ours" else title


def _any(value: Value, names: Iterable[str], figure: str) -> bool:
    return any(value(name, figure) is not None for name in names)


def _section(title: str, body: str) -> str:
    return f"### {title}\n\n{body}"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _shown(number: float | None, show: Callable[[float], str]) -> str:
    return NO_VALUE if number is None else show(number)


def _micro(number: float | None) -> str:
    return _shown(number, lambda n: f"{n:,.0f} µs" if n >= 100 else f"{n:.1f} µs")


def _milli(number: float | None) -> str:
    return _shown(number, lambda n: f"{n:,.0f} ms" if n >= 100 else f"{n:.1f} ms" if n >= 10 else f"{n:.2f} ms")


def _mega(number: float | None) -> str:
    return _shown(number, lambda n: f"{n:.0f} MB")


def _times(number: float | None) -> str:
    return _shown(number, lambda n: f"{n:,.1f}")


def _count(number: float | None) -> str:
    return _shown(number, lambda n: f"{n:,.0f}")
