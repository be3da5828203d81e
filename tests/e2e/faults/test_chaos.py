"""Short run of `bench/chaos` and the checks that it applies to responses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.chaos.checks import check_json, check_stream
from bench.chaos.harness import ChaosServers
from bench.chaos.report import Report
from tests.support.waiting import wait_until

CALLS = 300
TEXT = "You said: a b"


def test_random_faults_give_complete_answers_or_errors_and_leave_no_upstream_request(tmp_path: Path) -> None:
    with ChaosServers(tmp_path) as servers:
        report = Report(CALLS, 0.0)
        report.add(servers.run(CALLS, seed=1))
        assert report.problems == []
        assert report.outcomes["complete"] > CALLS / 2
        assert report.outcomes["error"] > 0
        wait_until(lambda: not servers.footprint().upstream_requests, "no request is open at the upstream")


def event(content: str | None = None, finish: str | None = None) -> bytes:
    delta = {"content": content} if content is not None else {}
    return f"data: {json.dumps({'choices': [{'delta': delta, 'finish_reason': finish}]})}\n\n".encode()


DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error": {"message": "m", "type": "t", "param": null, "code": null}}\n\n'
GOOD = [event("You said: a"), event(" b"), event(finish="stop"), DONE]


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        (GOOD, "complete"),
        ([GOOD[0], ERROR], "error"),
        ([GOOD[0], GOOD[2], DONE], "wrong answer"),
        ([*GOOD[:2], *GOOD], "wrong answer"),
        (GOOD[:3], "wrong answer"),
        ([*GOOD, *GOOD], "wrong answer"),
        ([GOOD[0], ERROR, DONE], "malformed end"),
        ([event("You said: c"), ERROR], "malformed end"),
        ([GOOD[0][:-1]], "truncated event"),
        ([b"data: {\n\n", *GOOD], "broken event"),
    ],
)
def test_check_of_a_stream_detects_what_is_wrong(events: list[bytes], outcome: str) -> None:
    assert check_stream(200, b"".join(events), TEXT)[0] == outcome


@pytest.mark.parametrize(
    ("status", "content", "finish", "outcome"),
    [(200, TEXT, "stop", "complete"), (200, TEXT[:-1], "stop", "wrong answer"), (200, TEXT, None, "wrong answer")],
)
def test_check_of_a_json_response_detects_what_is_wrong(
    status: int, content: str, finish: str | None, outcome: str
) -> None:
    body = json.dumps({"choices": [{"message": {"content": content}, "finish_reason": finish}]}).encode()
    assert check_json(status, body, TEXT)[0] == outcome
    assert check_json(status, body[:-1], TEXT)[0] == "not JSON"
    assert check_json(500, b'{"error": "x"}', TEXT)[0] == "malformed error"
