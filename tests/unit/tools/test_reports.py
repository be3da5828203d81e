"""JSON reports of `doctor` and `conformance`, and the doctor's talk with a server of another version."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.tools.conformance import client, report
from openai_compat.tools.conformance.registry import Check
from openai_compat.tools.conformance.runner import Result
from openai_compat.tools.doctor import results
from openai_compat.tools.doctor.target import Target
from openai_compat.tools.http_probe import BaseURL, ProbeResponse

URL = BaseURL.parse("http://localhost:8000/v1")


def test_the_doctor_repeats_its_results_under_their_former_names() -> None:
    checked = [
        results.passed("buffering", "none"),
        results.failed("CORS", "no header", "CORS_ALLOW_ORIGINS=*"),
        results.skipped("reload", "no command"),
    ]
    written = results.to_json(Target(URL, {}), checked)
    assert [result["outcome"] for result in written["results"]] == ["passed", "failed", "skipped"]
    assert json.loads(json.dumps(written["findings"])) == [
        {"check": "buffering", "outcome": "good", "says": "none", "change": []},
        {"check": "CORS", "outcome": "bad", "says": "no header", "change": ["CORS_ALLOW_ORIGINS=*"]},
        {"check": "reload", "outcome": "not checked", "says": "no command", "change": []},
    ]


def test_the_conformance_report_repeats_its_counts_and_checks_under_their_former_names() -> None:
    def says_hello(_client: Any) -> None: ...

    check = Check("Chat", "says hello", "clients greet", says_hello)
    ran = [Result(check, "passed", "", 0.1), Result(check, "passed", "", 0.1), Result(check, "failed", "500", 0.2)]
    written = report.to_json(client.Target(URL, "m", "m", "m", {}), [*ran, Result(check, "skipped", "no tools", 0.0)])
    assert (written["passed"], written["failed"], written["skipped"]) == (2, 1, 1)
    assert (written["right"], written["wrong"], written["not_asked"]) == (2, 1, 1)
    assert [check["outcome"] for check in written["checks"]] == ["passed", "passed", "failed", "skipped"]
    assert [question["outcome"] for question in written["questions"]] == ["right", "right", "wrong", "not asked"]
    assert written["questions"][2]["detail"] == "500"


@pytest.mark.parametrize(
    "answer", [{"left_at": 1.5}, {"disconnected_at": 1.5}, {"disconnected_at": 1.5, "left_at": 1.5}]
)
def test_the_doctor_understands_a_server_of_every_version(
    answer: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []

    def run_command(_target: Target, **command: Any) -> ProbeResponse:
        commands.append(command)
        body = json.dumps({"choices": [{"message": {"content": json.dumps(answer)}}]}).encode()
        return ProbeResponse(200, {}, body, [])

    monkeypatch.setattr(Target, "run_command", run_command)
    assert Target(URL, {}).disconnect_time("call-1", 1.0) == 1.5
    assert commands == [{"stream": False, "query": "call-1", "about": "call-1"}]
