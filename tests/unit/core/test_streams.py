"""Primed streams, background starts and cancellation."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import chain

import pytest

from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import CallCancelledError
from openai_compat.core.streams import HEARTBEAT, BackgroundStart, PrimedStream


class Source:
    """Iterator that records whether it was closed."""

    def __init__(self, *values: int, fails: bool = False) -> None:
        self._values = iter(values)
        self._fails = fails
        self.is_closed = False

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self._fails:
            raise ValueError("broken")
        return next(self._values)

    def close(self) -> None:
        self.is_closed = True


def test_a_primed_stream_yields_every_value_once() -> None:
    assert list(PrimedStream(iter([1, 2, 3]))) == [1, 2, 3]
    assert list(PrimedStream(iter([]))) == []


def test_heartbeats_before_the_first_value_are_dropped() -> None:
    source = Source(fails=True)
    with pytest.raises(ValueError, match="broken"):
        PrimedStream(chain([HEARTBEAT, HEARTBEAT], source))
    assert list(PrimedStream(iter([HEARTBEAT, 1, HEARTBEAT, 2]))) == [1, HEARTBEAT, 2]


def test_priming_raises_an_early_failure_and_closes_the_source() -> None:
    source = Source(fails=True)
    with pytest.raises(ValueError, match="broken"):
        PrimedStream(source)
    assert source.is_closed


@pytest.mark.parametrize("read", [0, 1, 2])
def test_close_reaches_the_source_after_any_number_of_values(read: int) -> None:
    source = Source(1, 2, 3)
    stream = PrimedStream(source)
    for _ in range(read):
        next(stream)
    stream.close()
    assert source.is_closed


def test_close_reaches_a_generator_that_was_never_read() -> None:
    events: list[str] = []

    def generate() -> Iterator[int]:
        try:
            yield 1
        finally:
            events.append("closed")

    PrimedStream(generate()).close()
    assert events == ["closed"]


def test_callbacks_registered_before_and_after_the_cancellation_run_once() -> None:
    cancellation, woken = CancellationToken(), []
    cancellation.on_cancel(lambda: woken.append("before"))
    removed = woken.append
    cancellation.on_cancel(removed)  # type: ignore[arg-type]  # it must never be called
    cancellation.remove_callback(removed)  # type: ignore[arg-type]
    cancellation.cancel()
    cancellation.on_cancel(lambda: woken.append("after"))
    cancellation.cancel()
    assert woken == ["before", "after"]


def test_a_wait_ends_with_the_cancellation() -> None:
    cancellation = CancellationToken()
    threading.Timer(0.05, cancellation.cancel).start()
    with pytest.raises(CallCancelledError):
        cancellation.wait(30)


def test_a_background_start_returns_its_result_or_raises_its_error() -> None:
    assert BackgroundStart(lambda: 7).result() == 7
    failing = BackgroundStart(lambda: Source(fails=True).__next__())
    with pytest.raises(ValueError, match="broken"):
        failing.result()


def test_a_closed_background_start_closes_its_result_as_soon_as_it_exists() -> None:
    source, may_start = Source(1), threading.Event()

    def start() -> Source:
        may_start.wait()
        return source

    pending = BackgroundStart(start)
    assert not pending.wait(0.01)
    pending.close()
    may_start.set()
    pending.result()
    for _ in range(1000):
        if source.is_closed:
            break
        pending.wait(0.01)
    assert source.is_closed
