"""Metrics as text, in Prometheus' format and in OpenMetrics'."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

from openai_compat.core.turns import TimeSlices

from .families import FAMILIES, Family

Format = Literal["text", "openmetrics"]
CONTENT_TYPES: Final[Mapping[Format, str]] = {
    "text": "text/plain; version=0.0.4; charset=utf-8",
    "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8",
}
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Labels = tuple[str, ...]
Totals = Mapping[Labels, Sequence[float]]
"""Values of one metric by the values of its labels."""


def render(values: Mapping[str, Totals], form: Format, turns: TimeSlices) -> bytes:
    """Return all metrics as text, in turns with other greenlets."""
    pieces = []
    for family in FAMILIES:
        for piece in render_family(family, values[family.name], form):
            pieces.append(piece.encode())
            turns.check()
    if form == "openmetrics":
        pieces.append(b"# EOF\n")
    return b"".join(pieces)


def render_family(family: Family, totals: Totals, form: Format) -> Iterator[str]:
    """Yield the lines of one metric in pieces of one series. A metric without series is left out."""
    if not totals:
        return
    name = family.name
    shown = name.removesuffix("_total") if form == "openmetrics" and family.kind == "counter" else name
    meaning = family.meaning.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {shown} {meaning}\n# TYPE {shown} {family.kind}\n"
    bounds = [f'le="{bound}"' for bound in (*map(_number, family.buckets), "+Inf")]
    for values in sorted(totals):
        labels = _labels(family.labels, values)
        if family.kind == "histogram":
            yield _histogram(name, labels, bounds, totals[values])
        else:
            yield (
                f"{name}{{{labels}}} {_number(totals[values][0])}\n"
                if labels
                else (f"{name} {_number(totals[values][0])}\n")
            )


def _labels(names: Iterable[str], values: Iterable[str]) -> str:
    """Return labels as text. One without a value is left out, which means the same."""
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(names, values, strict=True) if value)


def _histogram(name: str, labels: str, bounds: Sequence[str], values: Sequence[float]) -> str:
    before = f"{name}_bucket{{{labels}," if labels else f"{name}_bucket{{"
    total = 0
    lines = []
    for bound, count in zip(bounds, values, strict=False):
        total += int(count)
        lines.append(f"{before}{bound}}} {total}\n")
    lines.append(f"{name}_sum{{{labels}}} {_number(values[-1])}\n{name}_count{{{labels}}} {total}\n")
    return "".join(lines)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
