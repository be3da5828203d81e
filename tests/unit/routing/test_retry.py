"""Backoff and the `Retry-After` header."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate

import pytest

from openai_compat.routing.retry import Backoff, parse_retry_after


def test_delays_double_up_to_the_maximum_and_have_jitter() -> None:
    latest, earliest = Backoff(1.0, uniform=lambda: 1.0), Backoff(1.0, uniform=lambda: 0.0)
    assert [latest.delay(retry, None) for retry in range(4)] == [0.25, 0.5, 1.0, 1.0]
    assert [earliest.delay(retry, None) for retry in range(4)] == [0.125, 0.25, 0.5, 0.5]


def test_a_requested_delay_is_kept_unless_it_is_above_the_maximum() -> None:
    backoff = Backoff(2.0, uniform=lambda: 1.0)
    assert backoff.delay(0, 2.0) == pytest.approx(2.2)
    assert Backoff(2.0, uniform=lambda: 0.0).delay(3, 0.5) == 0.5
    assert backoff.delay(0, 2.1) is None
    assert backoff.delay(0, 0.0) == 0.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": formatdate(1_000_007, usegmt=True)}, 7.0),
        ({"retry-after": formatdate(999_000, usegmt=True)}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "nan", "retry-after": "2"}, 2.0),
    ],
)
def test_retry_after_is_read_as_milliseconds_seconds_or_a_date(
    headers: Mapping[str, str], seconds: float | None
) -> None:
    assert parse_retry_after(headers, clock=lambda: 1_000_000.0) == seconds
