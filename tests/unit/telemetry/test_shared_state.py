"""The check of the database during a scrape."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from openai_compat.core.errors import StorageUnavailableError
from openai_compat.telemetry import shared_state
from openai_compat.telemetry.shared_state import DatabaseProbe


def storage(check: Callable[[], None], *, is_new: bool = False) -> Any:
    return SimpleNamespace(check=check, is_new=is_new)


def fail() -> None:
    raise StorageUnavailableError


def test_a_database_that_answers_is_up_and_one_that_fails_is_not() -> None:
    assert DatabaseProbe(storage(lambda: None)).is_up()
    assert not DatabaseProbe(storage(fail)).is_up()


def test_a_database_that_hangs_is_asked_once_and_counts_as_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_state, "PROBE_SECONDS", 0.01)
    asked, answer = [], threading.Event()

    def hang() -> None:
        asked.append(1)
        answer.wait(20)

    probe = DatabaseProbe(storage(hang))
    assert [probe.is_up(), probe.is_up()] == [False, False]
    assert len(asked) == 1
    answer.set()
    monkeypatch.setattr(shared_state, "PROBE_SECONDS", 20)
    assert probe.is_up()


def test_a_database_that_does_not_exist_is_not_created() -> None:
    asked: list[int] = []
    assert not DatabaseProbe(storage(lambda: asked.append(1), is_new=True)).is_up()
    assert not asked
