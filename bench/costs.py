"""Figures of a cost measurement, written to the results as JSON and as plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from .compare.plots import COLOURS, Bar, draw_bars
from .machine import describe_hardware
from .paths import RESULTS

PLAIN: Final = COLOURS["nginx"]
COMPARED: Final = COLOURS["portkey"]
MEASURED: Final = COLOURS["ours"]


@dataclass(frozen=True, slots=True)
class Chart:
    """Figures of one kind, by what was measured. Figures whose name is in `colours` have that colour."""

    name: str
    title: str
    figures: Mapping[str, float]
    colours: Mapping[str, str]

    def draw(self) -> str:
        """Return the plot as SVG."""
        bars = [Bar(name, value, self.colours.get(name, PLAIN)) for name, value in self.figures.items()]
        return draw_bars(self.title, bars, _show)


def write_charts(name: str, charts: Sequence[Chart], folder: Path = RESULTS) -> None:
    """Write `NAME.json` with all figures, and a plot for each chart."""
    figures = {chart.name: {"title": chart.title, "figures": chart.figures} for chart in charts}
    result = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": describe_hardware(), "charts": figures}
    (folder / f"{name}.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    for chart in charts:
        (folder / f"{chart.name}.svg").write_text(chart.draw())


def _show(number: float) -> str:
    return f"{number:,.1f}" if number < 100 else f"{number:,.0f}"
