"""Usage of calls whose upstream does not tell it."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.accounts.gate import CallDescription, Outcome
from openai_compat.accounts.service import Accounts, EndedCall
from openai_compat.core.types import Usage


class Admission:
    def __init__(self, **call: Any) -> None:
        values = {"endpoint": "chat", "is_generation": True, "input_tokens": 10, "output_tokens": 100, **call}
        self.call = CallDescription(model="m", request_id="r", **values)
        self.outcome: Outcome | None = None

    def settle(self, outcome: Outcome) -> None:
        self.outcome = outcome


def settle(ended: EndedCall, **call: Any) -> Outcome:
    admission: Any = Admission(**call)
    Accounts.settle(object.__new__(Accounts), admission, ended)
    outcome: Outcome = admission.outcome
    return outcome


@pytest.mark.parametrize(
    ("ended", "call", "expected"),
    [
        (EndedCall(200, 1, None, answer_bytes=80), {}, Usage(10, 20)),
        (EndedCall(200, 1, None, answer_bytes=8000), {}, Usage(10, 100)),
        (EndedCall(200, 1, None, answer_bytes=8000), {"endpoint": "embeddings", "output_tokens": 0}, Usage(10)),
        (EndedCall(499, 1, None, 7), {}, Usage(10, 7)),
        (EndedCall(499, 1, None, is_sent=False), {}, None),
        (EndedCall(499, 1, None, goes_on=True, is_sent=False), {}, None),
        (EndedCall(200, 1, None, 0), {}, None),
        (EndedCall(499, 1, None), {}, Usage(10)),
        (EndedCall(499, 1, None, 0), {}, Usage(10)),
        (EndedCall(502, 1, None, answer_bytes=80), {}, None),
        (EndedCall(500, 1, None, 7), {}, Usage(10, 7)),
        (EndedCall(500, 1, None, 0), {}, None),
        (EndedCall(200, 1, None, answer_bytes=80), {"is_generation": False}, None),
        (EndedCall(200, 1, None, answer_bytes=80, goes_on=True), {}, Usage(10, 100)),
        (EndedCall(499, 1, None, 3, goes_on=True), {}, Usage(10, 100)),
        (EndedCall(400, 1, None, goes_on=True), {}, None),
        (EndedCall(200, 1, Usage(2**70, 5), answer_bytes=80), {}, Usage(10, 20)),
    ],
    ids=[
        "complete", "long", "embeddings", "cut stream", "not sent", "not sent in the background",
        "empty stream", "no answer", "no event", "error",
        "background stream that broke", "background stream that failed", "count of tokens", "in the background",
        "cut in the background", "refused in the background", "absurd counts",
    ],
)  # fmt: skip
def test_a_call_without_usage_is_estimated(ended: EndedCall, call: dict[str, Any], expected: Usage | None) -> None:
    outcome = settle(ended, **call)
    assert (outcome.usage, outcome.is_estimated) == (expected, expected is not None)


def test_the_counts_of_the_upstream_are_taken_as_they_are() -> None:
    outcome = settle(EndedCall(200, 1, Usage(0, 0), 9, answer_bytes=80, goes_on=True))
    assert (outcome.usage, outcome.is_estimated) == (Usage(0, 0), False)


@pytest.mark.parametrize(
    "ended",
    [
        EndedCall(499, 1, Usage(30, 1, 20), 60),
        EndedCall(200, 1, Usage(30, 1, 20), 60, error="upstream_truncated"),
        EndedCall(500, 1, Usage(30, 1, 20), 60),
    ],
    ids=["client gone", "cut by the upstream", "cut in the background"],
)
def test_a_cut_stream_costs_what_was_streamed_if_its_counts_are_those_of_its_start(ended: EndedCall) -> None:
    outcome = settle(ended)
    assert (outcome.usage, outcome.is_estimated) == (Usage(30, 60, 20), True)


def test_a_cut_stream_costs_the_counts_of_the_upstream_if_they_are_higher() -> None:
    outcome = settle(EndedCall(499, 1, Usage(30, 90), 60))
    assert (outcome.usage, outcome.is_estimated) == (Usage(30, 90), False)
