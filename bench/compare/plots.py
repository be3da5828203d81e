"""SVG plots of a run with logarithmic axes."""

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
    """Write the plots that the run has figures for and return their paths."""
    value = to_value(result["figures"])
    memory = "memory/idle_worker_mb"
    plots = {
        "chat": _figure_bars(result, value, CHAT, "CPU time per chat, 1 kB (µs, logarithmic)", _integer),
        "event": _figure_bars(
            result, value, EVENT, "CPU time per streamed event, 100 streams (µs, logarithmic)", _one_decimal
        ),
        "memory": _figure_bars(result, value, memory, "Memory of an idle worker (MB, logarithmic)", _integer),
        "first-token": _first_tokens(result, value),
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, plot in plots.items():
        if plot:
            path = folder / f"{name}.svg"
            path.write_text(plot)
            written.append(path)
    return written


def _figure_bars(result: dict[str, Any], value: Value, figure: str, title: str, show: Callable[[float], str]) -> str:
    found = [(name, value(name, figure)) for name in result["systems"]]
    bars = [Bar(result["systems"][name]["title"], number, COLOURS[name]) for name, number in found if number]
    return draw_bars(title, bars, show) if bars else ""


def _first_tokens(result: dict[str, Any], value: Value) -> str:
    """Plot the first token over the number of streams. Streams at another pace than the first load are omitted."""
    pace = result["plan"]["streams"][0]["interval_ms"]
    counts = [wanted["count"] for wanted in result["plan"]["streams"] if wanted["interval_ms"] == pace]
    lines = []
    for name in result["systems"]:
        found = [(count, value(name, f"streams/{count}/first_p50_ms")) for count in counts]
        points = [(float(count), number) for count, number in found if number]
        if len(points) > 1:
            lines.append(Line(result["systems"][name]["title"], points, COLOURS[name]))
    title = f"First event of streams started at once (ms, p50, sent by the upstream after {pace} ms)"
    return draw_lines(title, lines, [float(count) for count in counts]) if lines else ""


def draw_bars(title: str, bars: Sequence[Bar], show: Callable[[float], str]) -> str:
    """Return horizontal bars. The axis begins at the power of ten below the smallest value."""
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
    """Return lines on two logarithmic axes, each labelled at its end."""
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
    labels = _spread([down(line.points[-1][1]) for line in lines], 16)
    for line, label in zip(lines, labels, strict=True):
        points = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{line.colour}" stroke-width="2.5"/>')
        parts += [
            f'<circle cx="{across(x):.1f}" cy="{down(y):.1f}" r="3.5" fill="{line.colour}"/>' for x, y in line.points
        ]
        label_text = f"{line.title}: {line.points[-1][1]:,.0f}"
        parts.append(_text(WIDTH - right + 10, label + 4, label_text, f'font-size="12" style="fill: {line.colour}"'))
    return _document(title, height, parts)


def _spread(positions: Sequence[float], distance: float) -> list[float]:
    """Return the positions, moved down where they are closer together than `distance`."""
    moved = list(positions)
    last = -math.inf
    for index in sorted(range(len(positions)), key=lambda index: positions[index]):
        moved[index] = last = max(positions[index], last + distance)
    return moved


def _document(title: str, height: float, parts: Sequence[str]) -> str:
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" {FONT} role="img">'
    background = '<rect width="100%" height="100%" fill="#fff"/>'
    heading = _text(16, 26, title, 'font-size="14" font-weight="600"')
    return "\n".join([opening, f"<title>{escape(title)}</title>", background, heading, *parts, "</svg>", ""])


def _text(x: float, y: float, text: str, attributes: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="#222" {attributes}>{escape(text)}</text>'


def _integer(number: float) -> str:
    return f"{number:,.0f}"


def _one_decimal(number: float) -> str:
    return f"{number:,.1f}" if number < 100 else _integer(number)
