"""Plots of a run as SVG, drawn by hand: bars on a logarithmic axis, and lines on two of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

from .targets import CHAT, EVENT, Value, to_value

WIDTH: Final = 720
COLOURS: Final = {
    "nginx": "#7f8c8d",
    "ours": "#0b7285",
    "plain": "#e8a33d",
    "portkey": "#9b6bcc",
    "litellm": "#d9534f",
}
FONT: Final = 'font-family="system-ui, sans-serif"'


@dataclass(frozen=True, slots=True)
class Bar:
    title: str
    value: float
    colour: str


@dataclass(frozen=True, slots=True)
class Line:
    title: str
    points: Sequence[tuple[float, float]]
    colour: str


def draw_plots(result: dict[str, Any], folder: Path) -> list[Path]:
    """Writes what the run has figures for; the files."""
    value = to_value(result["figures"])
    memory = "memory/idle_worker_mb"
    pictures = {
        "chat": _figure_bars(result, value, CHAT, "CPU time per chat, 1 kB (µs, logarithmic)", _whole),
        "event": _figure_bars(
            result, value, EVENT, "CPU time per streamed event, 100 streams (µs, logarithmic)", _short
        ),
        "memory": _figure_bars(result, value, memory, "Memory of an idle worker (MB, logarithmic)", _whole),
        "first-token": _first_tokens(result, value),
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, picture in pictures.items():
        if picture:
            path = folder / f"{name}.svg"
            path.write_text(picture)
            written.append(path)
    return written


def _figure_bars(result: dict[str, Any], value: Value, figure: str, title: str, show: Callable[[float], str]) -> str:
    found = [(name, value(name, figure)) for name in result["systems"]]
    bars = [Bar(result["systems"][name]["title"], number, COLOURS[name]) for name, number in found if number]
    return draw_bars(title, bars, show) if bars else ""


def _first_tokens(result: dict[str, Any], value: Value) -> str:
    """Only where the streams go at the same pace: the others are another load."""
    pace = result["plan"]["streams"][0]["interval_ms"]
    counts = [wanted["count"] for wanted in result["plan"]["streams"] if wanted["interval_ms"] == pace]
    lines = []
    for name in result["systems"]:
        found = [(count, value(name, f"streams/{count}/first_p50_ms")) for count in counts]
        points = [(float(count), number) for count, number in found if number]
        if len(points) > 1:
            lines.append(Line(result["systems"][name]["title"], points, COLOURS[name]))
    title = f"First event of streams started at once (ms, p50; the upstream sends it after {pace} ms)"
    return draw_lines(title, lines, [float(count) for count in counts]) if lines else ""


def draw_bars(title: str, bars: Sequence[Bar], show: Callable[[float], str]) -> str:
    """Horizontal bars from one power of ten below the smallest."""
    row, top, left, right = 34, 46, 200, 90
    low = math.floor(math.log10(min(bar.value for bar in bars)))
    high = max(math.log10(bar.value) for bar in bars)
    scale = (WIDTH - left - right) / max(high - low, 1e-9)
    parts = []
    for number, bar in enumerate(bars):
        y = top + number * row
        width = max(2.0, (math.log10(bar.value) - low) * scale)
        weight = ' font-weight="600"' if bar.colour == COLOURS["ours"] else ""
        parts += [
            _text(left - 10, y + 16, bar.title, f'text-anchor="end" font-size="13"{weight}'),
            f'<rect x="{left}" y="{y}" width="{width:.1f}" height="22" rx="2" fill="{bar.colour}"/>',
            _text(left + width + 8, y + 16, show(bar.value), f'font-size="13"{weight}'),
        ]
    return _document(title, top + len(bars) * row + 8, parts)


def draw_lines(title: str, lines: Sequence[Line], ticks: Sequence[float]) -> str:
    """Both axes logarithmic; each line is named at its end."""
    top, bottom, left, right, height = 50, 40, 70, 230, 380
    xs = [math.log10(x) for line in lines for x, _y in line.points]
    ys = [math.log10(y) for line in lines for _x, y in line.points]
    low, high = math.floor(min(ys)), math.ceil(max(ys))

    def across(x: float) -> float:
        return left + (math.log10(x) - min(xs)) / max(max(xs) - min(xs), 1e-9) * (WIDTH - left - right)

    def down(y: float) -> float:
        return height - bottom - (math.log10(y) - low) / (high - low) * (height - top - bottom)

    parts = []
    for power in range(low, high + 1):
        y = down(10.0**power)
        parts.append(f'<line x1="{left}" x2="{WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(left - 8, y + 4, f"{10**power:,}", 'text-anchor="end" font-size="12"'))
    parts += [_text(across(x), height - bottom + 20, f"{x:,.0f}", 'text-anchor="middle" font-size="12"') for x in ticks]
    labels = _apart([down(line.points[-1][1]) for line in lines], 16)
    for line, label in zip(lines, labels, strict=True):
        points = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{line.colour}" stroke-width="2.5"/>')
        parts += [
            f'<circle cx="{across(x):.1f}" cy="{down(y):.1f}" r="3.5" fill="{line.colour}"/>' for x, y in line.points
        ]
        words = f"{line.title}: {line.points[-1][1]:,.0f}"
        parts.append(_text(WIDTH - right + 10, label + 4, words, f'font-size="12" style="fill: {line.colour}"'))
    return _document(title, height, parts)


def _apart(places: Sequence[float], distance: float) -> list[float]:
    """The places, moved down where they would be closer together than `distance`."""
    moved = list(places)
    last = -math.inf
    for index in sorted(range(len(places)), key=lambda index: places[index]):
        moved[index] = last = max(places[index], last + distance)
    return moved


def _document(title: str, height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" {FONT} role="img">'
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    name = _text(16, 26, title, 'font-size="14" font-weight="600"')
    return "\n".join([head, f"<title>{escape(title)}</title>", ground, name, *parts, "</svg>", ""])


def _text(x: float, y: float, words: str, attributes: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="#222" {attributes}>{escape(words)}</text>'


def _whole(number: float) -> str:
    return f"{number:,.0f}"


def _short(number: float) -> str:
    return f"{number:,.1f}" if number < 100 else _whole(number)
