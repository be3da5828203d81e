"""Windows of budgets, which slide over a length of time or follow the calendar of a time zone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from openai_compat.state.ledger import Meter, sliding_meter

CALENDAR: Final = ("hour", "day", "week", "month", "year")
UNITS: Final = {"m": 60, "h": 3600, "d": 86_400}
_present: dict[Window, tuple[float, float]] = {}
"""Bounds of the present windows, which take 10 µs to compute."""
_LENGTH: Final = re.compile(r"([1-9]\d{0,3})([mhd])")


@dataclass(frozen=True, slots=True)
class Window:
    """A window of time. `every` is one of `CALENDAR`, a length such as `30d`, or None for all time."""

    every: str | None = None
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: the message continues a sentence that begins with the name of the value.
        """
        if self.every is not None and self.every not in CALENDAR and not _LENGTH.fullmatch(self.every):
            raise ValueError(f"must be one of {', '.join(CALENDAR)}, or a length such as 12h or 30d")
        try:
            _zone(self.time_zone)
        except (OSError, ValueError, ZoneInfoNotFoundError) as error:
            raise ValueError(f"has the unknown time zone '{self.time_zone[:60]}'") from error

    @property
    def seconds(self) -> float | None:
        """Length of a sliding window, or None for another one."""
        found = _LENGTH.fullmatch(self.every or "")
        return float(found[1]) * UNITS[found[2]] if found else None

    def meter(self, owner: str, name: str, limit: int, now: float) -> Meter:
        """Return the meter of this window at the time `now`."""
        if self.every is None:
            return Meter(owner, name, limit)
        start, end = _present.get(self) or (0.0, 0.0)
        if not start <= now < end:
            if (seconds := self.seconds) is not None:
                return sliding_meter(owner, name, limit, seconds, now)
            start, end = _present[self] = self.bounds(now)
        return Meter(owner, name, limit, end - start, int(start), 0.0, end - now)

    def start(self, now: float) -> float:
        """Return the start of the present window as a Unix time, 0 for all time."""
        if self.every is None:
            return 0.0
        if (seconds := self.seconds) is not None:
            return now // seconds * seconds
        return self.bounds(now)[0]

    def bounds(self, now: float) -> tuple[float, float]:
        """Return the start and the end of the present window of the calendar, as Unix times."""
        local = datetime.fromtimestamp(now, _zone(self.time_zone))
        if self.every == "hour":
            begin = local.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
            return begin.timestamp(), (begin + timedelta(hours=1)).timestamp()
        day = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        if self.every == "week":
            day -= timedelta(days=day.weekday())
        elif self.every == "month":
            day = day.replace(day=1)
        elif self.every == "year":
            day = day.replace(month=1, day=1)
        return day.timestamp(), self._next(day).timestamp()

    def _next(self, start: datetime) -> datetime:
        """Return the start of the next window. Arithmetic on local times keeps the hour over a change of the clock."""
        if self.every == "day":
            return start + timedelta(days=1)
        if self.every == "week":
            return start + timedelta(days=7)
        years, month = divmod(start.month, 12) if self.every == "month" else (1, start.month - 1)
        return start.replace(year=start.year + years, month=month + 1)


def _zone(name: str) -> tzinfo:
    """Return a time zone. UTC is known also where the system has no list of time zones."""
    return UTC if name == "UTC" else ZoneInfo(name)
