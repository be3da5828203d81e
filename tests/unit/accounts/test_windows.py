"""Windows of budgets."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from openai_compat.accounts.windows import Window


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("every", "zone", "now", "start", "end"),
    [
        ("hour", "UTC", "2026-03-04T05:06:07", "2026-03-04T05:00", "2026-03-04T06:00"),
        ("day", "Europe/Berlin", "2026-03-29T12:00", "2026-03-29T00:00", "2026-03-30T00:00"),  # 23 hours
        ("day", "Europe/Berlin", "2026-10-25T12:00", "2026-10-25T00:00", "2026-10-26T00:00"),  # 25 hours
        ("week", "America/New_York", "2026-11-29T23:59", "2026-11-23T00:00", "2026-11-30T00:00"),
        ("month", "Asia/Tokyo", "2026-12-31T23:59", "2026-12-01T00:00", "2027-01-01T00:00"),
        ("month", "UTC", "2028-02-29T00:00", "2028-02-01T00:00", "2028-03-01T00:00"),
        ("year", "UTC", "2026-06-01T00:00", "2026-01-01T00:00", "2027-01-01T00:00"),
    ],
)
def test_a_window_of_the_calendar_follows_its_time_zone(every: str, zone: str, now: str, start: str, end: str) -> None:
    meter = Window(every, zone).meter("key_1", "budget", 10, at(now, zone))
    assert meter.window == at(start, zone)
    assert meter.rest == at(end, zone) - at(now, zone)
    assert meter.weight == 0


def test_a_sliding_window_counts_less_and_less_of_the_one_before() -> None:
    meter = Window("30d").meter("key_1", "budget", 10, 30 * 86_400 * 5.25)
    assert (meter.window, meter.weight) == (5, 0.75)
    assert meter.rest == 30 * 86_400 * 0.75


def test_a_window_without_an_end_never_starts_anew() -> None:
    assert Window().meter("key_1", "budget", 10, 0).window == Window().meter("key_1", "budget", 10, 1e10).window


@pytest.mark.parametrize("every", ["fortnight", "0d", "1.5h", "-1d", "d", "1 d", "99999d"])
def test_an_unknown_window_is_refused(every: str) -> None:
    with pytest.raises(ValueError, match="must be one of hour, day"):
        Window(every)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", ""])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="unknown time zone"):
        Window("day", zone)
