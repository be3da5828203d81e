"""`python -m openai_compat conformance`: what this server scores, and that each kind of mistake costs its point."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from openai_compat.tools import conformance
from openai_compat.tools.conformance.client import ConformanceClient, Target
from openai_compat.tools.conformance.runner import QUESTIONS, ask_all
from openai_compat.tools.http_probe import ProbeResponse
from tests.support.live_server import ROOT, LiveServer
from tests.support.mock_upstream import MockUpstream

KEY = "sk-mine"
ORIGIN = "http://localhost:3000"


@pytest.fixture(scope="module")
def mock() -> Iterator[MockUpstream]:
    with MockUpstream() as running:
        yield running


def ask(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "openai_compat", "conformance", url, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def interview_of(url: str, model: str, timeout: str = "20") -> ConformanceClient:
    parser = argparse.ArgumentParser()
    conformance.add_arguments(parser)
    return ConformanceClient(Target.from_arguments(parser.parse_args([url, "--model", model, "--timeout", timeout])))


def wrong_answers(url: str, model: str) -> set[str]:
    """The questions that a server gets wrong; not in a process of its own, for time's sake."""
    results = ask_all(QUESTIONS, interview_of(url, model), lambda _: None)
    return {result.question.name for result in results if result.outcome == "wrong"}


def test_this_server_gets_every_answer_right() -> None:
    with LiveServer({"API_KEYS": KEY}) as server:
        options = ["--model", "mock-gpt-model", "--api-key", KEY, "--origin", ORIGIN]
        asked = ask(server.url, *options, "--json")
        shown = ask(server.base_url, *options)
    card: dict[str, Any] = json.loads(asked.stdout)
    wrong = [question for question in card["questions"] if question["outcome"] == "wrong"]
    assert wrong == []
    assert asked.returncode == shown.returncode == 0
    assert card["right"] >= 60
    assert card["right"] + card["not_asked"] == len(QUESTIONS) == len(card["questions"])
    assert f"{card['right']} of {card['right']} right" in shown.stdout


def test_and_so_it_does_in_front_of_another(mock: MockUpstream) -> None:
    """What the mock itself lacks is no fault of ours: it has an answer for every path, and no responses."""
    with LiveServer({"OPENAI_BASE_URL": mock.base_url}) as server:
        assert wrong_answers(server.base_url, "mock-model") <= {"unknown-path", "wrong-method", "responses-stream"}


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("fault-no-done", {"done", "text-completion-chunks"}),
        ("fault-no-finish", {"finish-reason", "one-finish-reason", "tool-finish-reason", "max-tokens"}),
        ("fault-comments", {"lines"}),
        ("fault-gzip", {"compression", "length-and-compression"}),
        ("fault-empty-choices-first", {"one-id"}),
        ("fault-usage-in-last-chunk", {"no-usage-unasked", "usage-when-asked"}),
        ("fault-no-usage", {"usage", "usage-when-asked", "text-completion", "embedding-objects"}),
        ("fault-reject-max-tokens", {"max-tokens", "optional-nulls"}),
        ("fault-reject-max-completion-tokens", {"max-completion-tokens", "optional-nulls"}),
        ("fault-bad-json-event", {"chunk-objects", "tool-arguments"}),
        ("fault-html-error", {"strange-json", "message", "media-type"}),
        ("fault-cut", {"done", "one-finish-reason", "message", "embedding-order"}),
    ],
)
def test_a_mistake_costs_its_points(mock: MockUpstream, model: str, found: set[str]) -> None:
    base = {"unknown-path", "wrong-method", "responses-stream", "cache-control", "accel-buffering"}
    assert wrong_answers(mock.base_url, model) - base >= found
    assert not (wrong_answers(mock.base_url, "mock-model") - base) & found


def test_a_wrong_answer_is_shown_with_what_came_and_why_it_matters(mock: MockUpstream) -> None:
    done = ask(mock.base_url, "--model", "fault-no-done")
    assert done.returncode == 1
    assert "✗ `data: [DONE]` ends it, once\n      came: 0 times [DONE]\n      why it matters: " in done.stdout


def test_a_model_that_finds_no_end_is_given_up(mock: MockUpstream) -> None:
    mentioned: list[str] = []
    (question,) = [question for question in QUESTIONS if question.name == "characters"]
    interview = interview_of(mock.base_url, "fault-slow:delay=0.1,chunks=3000", timeout="1")
    (result,) = ask_all([question], interview, mentioned.append)
    assert (result.outcome, mentioned) == ("not asked", ["1/1 characters beyond ASCII come whole"])
    assert "still talking after 1 s" in result.detail


FLOW, LUMP, SHORT = [(0.1, 10), (1.0, 20)], [(0.99, 10), (1.0, 20)], [(0.01, 10), (0.02, 20)]


@pytest.mark.parametrize(
    ("came", "outcome"),
    [([FLOW], "right"), ([LUMP, LUMP, FLOW], "right"), ([LUMP] * 3, "wrong"), ([SHORT], "not asked")],
)
def test_a_stream_is_held_back_where_three_come_in_one_lump(
    monkeypatch: pytest.MonkeyPatch, came: list[list[tuple[float, int]]], outcome: str
) -> None:
    (question,) = [question for question in QUESTIONS if question.name == "comes-as-it-is-made"]
    interview, answers = interview_of("http://127.0.0.1:1", "m"), iter(came)
    monkeypatch.setattr(interview, "post", lambda *_: ProbeResponse(200, {}, arrivals=next(answers)))
    assert [result.outcome for result in ask_all([question], interview, lambda _: None)] == [outcome]


def test_nobody_to_ask_is_said_plainly() -> None:
    for url in ("http://127.0.0.1:1/v1", "ftp://somewhere"):
        done = ask(url, "--model", "m")
        assert (done.returncode, done.stdout) == (2, "")
        assert "cannot be asked" in done.stderr
