"""Timers that share one thread."""

from __future__ import annotations

import threading

import pytest

from openai_compat.core.timers import SharedTimer


def test_a_timer_calls_its_function_with_its_arguments() -> None:
    received, expired = [], threading.Event()

    def function(value: str) -> None:
        received.append(value)
        expired.set()

    SharedTimer(0.01, function, ("a",)).start()
    assert expired.wait(20)
    assert received == ["a"]


def test_timers_expire_in_the_order_of_their_times_whenever_they_were_started() -> None:
    received: list[int] = []
    expired = threading.Event()
    late = SharedTimer(60, expired.set)
    late.start()
    SharedTimer(0.1, expired.set).start()
    SharedTimer(0.05, received.append, (2,)).start()
    SharedTimer(0.02, received.append, (1,)).start()
    assert expired.wait(20)
    late.cancel()
    assert received == [1, 2]


def test_a_cancelled_timer_does_not_expire_and_holds_no_reference() -> None:
    received: list[int] = []
    expired = threading.Event()
    timer = SharedTimer(0.01, received.append, (1,))
    timer.start()
    timer.cancel()
    SharedTimer(0.05, expired.set).start()
    assert expired.wait(20)
    assert received == []
    assert timer.is_cancelled
    assert timer._arguments == ()


def test_a_function_that_fails_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    expired = threading.Event()

    def fail() -> None:
        raise ZeroDivisionError

    SharedTimer(0.01, fail).start()
    SharedTimer(0.03, expired.set).start()
    assert expired.wait(20)
    assert "a timer's function failed" in caplog.text
