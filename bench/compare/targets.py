"""Performance targets of this server, evaluated on the medians of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Value = Callable[[str, str], float | None]
"""Returns the median of a system's figure, None where it was not measured."""


@dataclass(frozen=True, slots=True)
class Target:
    """A bound for one measured value, an upper one unless `is_minimum`. `stretch` is a harder, optional bound."""

    title: str
    unit: str
    limit: float
    read: Callable[[Value], float | None]
    stretch: float | None = None
    is_minimum: bool = False

    def status(self, measured: float | None) -> str:
        """Return how a measured value compares with the bounds, in words for the table."""
        if measured is None:
            return "not measured"
        if self.stretch is not None and self._meets(measured, self.stretch):
            return "reached, stretch too"
        return "reached" if self._meets(measured, self.limit) else "**not reached**"

    def _meets(self, measured: float, limit: float) -> bool:
        return measured >= limit if self.is_minimum else measured <= limit

    @property
    def bound(self) -> str:
        """The bounds as text, such as `≤ 2.5 (1.9)`."""
        sign = "≥" if self.is_minimum else "≤"
        stretch = f" ({self.stretch:g})" if self.stretch is not None else ""
        return f"{sign} {self.limit:g}{stretch} {self.unit}".strip()


def _own(figure: str) -> Callable[[Value], float | None]:
    return lambda value: value("ours", figure)


def _ratio(numerator: tuple[str, str], denominator: tuple[str, str]) -> Callable[[Value], float | None]:
    def read(value: Value) -> float | None:
        above, below = value(*numerator), value(*denominator)
        return above / below if above is not None and below else None

    return read


def _above_nginx(figure: str) -> Callable[[Value], float | None]:
    def read(value: Value) -> float | None:
        ours, nginx = value("ours", figure), value("nginx", figure)
        return ours - nginx if ours is not None and nginx is not None else None

    return read


CHAT: Final = "closed/1kB/32/cpu_us"
EVENT: Final = "streams/100/cpu_us"

TARGETS: Final = (
    Target("chat: LiteLLM's CPU per request over ours", "", 20, _ratio(("litellm", CHAT), ("ours", CHAT)), 24, True),
    Target("chat: our CPU per request over Portkey's", "", 0.65, _ratio(("ours", CHAT), ("portkey", CHAT)), 0.55),
    Target("chat: our CPU per request over nginx's", "", 25, _ratio(("ours", CHAT), ("nginx", CHAT)), 21),
    Target("streamed event: LiteLLM's CPU over ours", "", 15, _ratio(("litellm", EVENT), ("ours", EVENT)), 20, True),
    Target("streamed event: our CPU over nginx's", "", 2.5, _ratio(("ours", EVENT), ("nginx", EVENT)), 1.9),
    Target("first token of 100 streams, p50, above nginx's", "ms", 20, _above_nginx("streams/100/first_p50_ms")),
    Target("1,000 streams: failed", "", 0, _own("streams/1000/failures")),
    Target("1,000 streams: gap, p99", "ms", 250, _own("streams/1000/gap_p99_ms")),
    Target(
        "40 messages: CPU per request over that of 2 messages", "", 1.3,
        _ratio(("ours", "bodies/40messages/cpu_us"), ("ours", "bodies/1kB/cpu_us")),
    ),
    Target("5 MB body: peak memory, in bodies (itself and two copies)", "", 3, _own("bodies/5MB/peak_copies")),
    Target("5 MB bodies in sequence: a concurrent small request, p99", "ms", 100, _own("stall/p99_ms")),
    Target("memory of the worker, idle (PSS)", "MB", 60, _own("memory/idle_worker_mb")),
    Target("memory of the worker, after 50,000 requests (PSS)", "MB", 70, _own("memory/after_worker_mb")),
    Target("start to first answered request", "s", 1.0, _own("start_s")),
)  # fmt: skip


def to_value(figures: Mapping[str, Mapping[str, Any]]) -> Value:
    """Return a reader of the medians in the `figures` of a result."""

    def value(system: str, figure: str) -> float | None:
        found = figures.get(system, {}).get(figure)
        return float(found["median"]) if found else None

    return value
