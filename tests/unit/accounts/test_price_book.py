"""Prices of the models of a server."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from openai_compat.accounts import price_data
from openai_compat.accounts.price_book import PriceBook
from openai_compat.core.prices import parse_price
from openai_compat.core.settings import ModelConfig
from tests.support.waiting import wait_until

URL = "https://api.example.com/v1"


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stand in for the process that reads the data set, which knows one model."""
    asked: list[dict[str, Any]] = []

    def answer(_: object, input: str, **__: object) -> Any:
        asked.append(json.loads(input))
        is_known = asked[-1]["model"] == "gpt-4o"
        return SimpleNamespace(stdout=json.dumps([(0, {"input": 2.5, "output": 10})] if is_known else []))

    monkeypatch.setattr(subprocess, "run", answer)
    monkeypatch.setattr(price_data, "find_spec", lambda _: True)
    return asked


def test_the_models_file_comes_first(questions: list[dict[str, Any]]) -> None:
    own = parse_price({"input": 1})
    assert PriceBook().find(ModelConfig("gpt-4o", "openai", URL, price=own), "gpt-4o", waits=True) == own
    assert questions == []


def test_what_runs_here_is_free(questions: list[dict[str, Any]]) -> None:
    price = PriceBook().find(ModelConfig("echo", "echo"), "echo", waits=True)
    assert price is not None
    assert price.highest_cost(1000, 1000) == 0
    assert questions == []


def test_the_data_set_is_asked_once_for_each_model(questions: list[dict[str, Any]]) -> None:
    book = PriceBook()
    for _ in range(3):
        entry = ModelConfig("fast", "openai", URL, upstream_model="gpt-4o")
        assert book.find(entry, "fast", waits=True) == parse_price({"input": 2.5, "output": 10})
        assert book.find(ModelConfig("own", "openai", URL), "own", waits=True) is None
    assert [question["model"] for question in questions] == ["gpt-4o", "own"]


def test_a_caller_without_a_budget_does_not_wait(questions: list[dict[str, Any]]) -> None:
    book, entry = PriceBook(), ModelConfig("gpt-4o", "openai", URL)
    first = book.find(entry, "gpt-4o")
    assert first is None or questions  # the thread may be faster
    wait_until(lambda: book.find(entry, "gpt-4o") is not None)
    assert len(questions) == 1


def test_a_failure_of_the_data_set_leaves_prices_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("prices", 1)

    monkeypatch.setattr(subprocess, "run", fail)
    monkeypatch.setattr(price_data, "find_spec", lambda _: True)
    assert PriceBook().find(ModelConfig("gpt-4o", "openai", URL), "gpt-4o", waits=True) is None


@pytest.mark.extra("prices")
def test_the_data_set_knows_public_models() -> None:
    book = PriceBook()
    known = book.find(ModelConfig("c", "anthropic", "https://api.anthropic.com/v1"), "claude-sonnet-4-5", waits=True)
    assert known is not None
    assert book.find(ModelConfig("c", "anthropic"), "claude-sonnet-4-5", waits=True) == known
    assert known.output > known.input > known.cached_input > 0
    elsewhere = ModelConfig("gpt-4o", "openai", "http://localhost:8000/v1")
    assert book.find(elsewhere, "gpt-4o", waits=True) is None
