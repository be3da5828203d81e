"""A small run of `bench/chaos.py`: calls with a random fault each, of which none is short, mixed or doubled."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from bench.chaos.harness import Chaos, Report, judge
from bench.chaos.checks import judge_stream, judge_whole

CALLS = 300
TEXT = "You said: a b"


def test_every_answer_is_whole_or_an_error_and_nothing_is_left(tmp_path: Path) -> None:
    with Chaos(tmp_path) as chaos:
        report = Report(CALLS, 0.0)
        judge(chaos.run(CALLS, seed=1), report)
        assert report.problems == []
        assert report.outcomes["whole"] > CALLS / 2
        assert report.outcomes["error"] > 0
        deadline = time.monotonic() + 20
        while chaos.weigh().upstream_requests:
            assert time.monotonic() < deadline, "an upstream runs on"
            time.sleep(0.05)


def event(content: str | None = None, finish: str | None = None) -> bytes:
    delta = {"content": content} if content is not None else {}
    return f"data: {json.dumps({'choices': [{'delta': delta, 'finish_reason': finish}]})}\n\n".encode()


DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error": {"message": "m", "type": "t", "param": null, "code": null}}\n\n'
GOOD = [event("You said: a"), event(" b"), event(finish="stop"), DONE]


@pytest.mark.parametrize(
    ("events", "verdict"),
    [
        (GOOD, "whole"),
        ([GOOD[0], ERROR], "error"),
        ([GOOD[0], GOOD[2], DONE], "not the answer"),
        ([*GOOD[:2], *GOOD], "not the answer"),
        (GOOD[:3], "not the answer"),
        ([*GOOD, *GOOD], "not the answer"),
        ([GOOD[0], ERROR, DONE], "a false end"),
        ([event("You said: c"), ERROR], "a false end"),
        ([GOOD[0][:-1]], "ends in an event"),
        ([b"data: {\n\n", *GOOD], "a broken event"),
    ],
)
def test_the_judge_of_a_stream_is_not_fooled(events: list[bytes], verdict: str) -> None:
    assert judge_stream(200, b"".join(events), TEXT)[0] == verdict


@pytest.mark.parametrize(
    ("status", "content", "finish", "verdict"),
    [(200, TEXT, "stop", "whole"), (200, TEXT[:-1], "stop", "not the answer"), (200, TEXT, None, "not the answer")],
)
def test_the_judge_of_a_whole_answer_is_not_fooled(status: int, content: str, finish: str | None, verdict: str) -> None:
    body = json.dumps({"choices": [{"message": {"content": content}, "finish_reason": finish}]}).encode()
    assert judge_whole(status, body, TEXT)[0] == verdict
    assert judge_whole(status, body[:-1], TEXT)[0] == "not JSON"
    assert judge_whole(500, b'{"error": "x"}', TEXT)[0] == "error in another shape"
