"""Turns of other greenlets during long work."""

from __future__ import annotations

import pytest

from openai_compat.core import turns


def test_calls_that_give_turns_at_the_same_time_do_so_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a new request would wait for a slice of each of them."""
    sleeps: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        if len(sleeps) < 4:
            turns.give_turn()

    monkeypatch.setattr(turns.time, "sleep", sleep)
    turns.give_turn()
    turns.give_turn()
    slices = [0, 1, 2, 3, 0]
    assert sleeps == [count * turns.SLICE_SECONDS or turns.YIELD_SLEEP for count in slices]
