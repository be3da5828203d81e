"""`python -m openai_compat conformance` passes for this server and detects each kind of fault."""

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
from openai_compat.tools.conformance.runner import CHECKS, run_checks
from openai_compat.tools.http_probe import ProbeResponse
from tests.support.live_server import ROOT, LiveServer
from tests.support.mock_upstream import MockUpstream

KEY = "sk-mine"
ORIGIN = "http://localhost:3000"


@pytest.fixture(scope="module")
def mock() -> Iterator[MockUpstream]:
    with MockUpstream() as running:
        yield running


def run_command(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "openai_compat", "conformance", url, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def client_of(url: str, model: str, timeout: str = "20") -> ConformanceClient:
    parser = argparse.ArgumentParser()
    conformance.add_arguments(parser)
    return ConformanceClient(Target.from_arguments(parser.parse_args([url, "--model", model, "--timeout", timeout])))


def failed_checks(url: str, model: str) -> set[str]:
    """Return the names of the checks that a server fails, without starting a process."""
    results = run_checks(CHECKS, client_of(url, model), lambda _: None)
    return {result.check.name for result in results if result.outcome == "failed"}


def test_this_server_passes_every_check() -> None:
    with LiveServer({"API_KEYS": KEY}) as server:
        options = ["--model", "mock-gpt-model", "--api-key", KEY, "--origin", ORIGIN]
        as_json = run_command(server.url, *options, "--json")
        as_text = run_command(server.base_url, *options)
    report: dict[str, Any] = json.loads(as_json.stdout)
    failed = [check for check in report["checks"] if check["outcome"] == "failed"]
    assert failed == []
    assert as_json.returncode == as_text.returncode == 0
    assert report["passed"] >= 70
    assert report["passed"] + report["skipped"] == len(CHECKS) == len(report["checks"])
    assert f"{report['passed']} of {report['passed']} passed" in as_text.stdout


def test_passthrough_to_the_mock_upstream_fails_only_what_the_mock_fails(mock: MockUpstream) -> None:
    """The mock upstream answers every path and has no Responses API."""
    with LiveServer({"OPENAI_BASE_URL": mock.base_url}) as server:
        assert failed_checks(server.base_url, "mock-model") <= {"unknown-path", "wrong-method", "responses-stream"}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("fault-no-done", {"done", "text-completion-chunks"}),
        ("fault-no-finish", {"finish-reason", "one-finish-reason", "tool-finish-reason", "max-tokens"}),
        ("fault-comments", {"lines"}),
        ("fault-gzip", {"compression", "length-and-compression"}),
        ("fault-empty-choices-first", {"same-id-in-all-chunks"}),
        ("fault-usage-in-last-chunk", {"no-usage-by-default", "usage-on-request"}),
        ("fault-no-usage", {"usage", "usage-on-request", "text-completion", "embedding-objects"}),
        ("fault-reject-max-tokens", {"max-tokens", "optional-nulls"}),
        ("fault-reject-max-completion-tokens", {"max-completion-tokens", "optional-nulls"}),
        ("fault-bad-json-event", {"chunk-objects", "tool-arguments"}),
        ("fault-html-error", {"unusual-json", "message", "media-type"}),
        ("fault-cut", {"done", "one-finish-reason", "message", "embedding-order"}),
    ],
)
def test_each_fault_fails_the_checks_that_it_breaks(mock: MockUpstream, model: str, expected: set[str]) -> None:
    always = {"unknown-path", "wrong-method", "responses-stream", "cache-control", "accel-buffering"}
    assert failed_checks(mock.base_url, model) - always >= expected
    assert not (failed_checks(mock.base_url, "mock-model") - always) & expected


def test_a_broken_stream_of_the_messages_api_does_not_look_complete(
    mock: MockUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LiveServer({"OPENAI_BASE_URL": mock.base_url}) as server:
        failed = failed_checks(server.base_url, "fault-cut")
        assert {"message-object", "message-usage"} <= failed
        assert "message-stream-end" not in failed
    (check,) = [check for check in CHECKS if check.name == "message-stream-end"]
    events = [
        b'event: message_start\ndata: {"type":"message_start"}\n\n',
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    ]
    answer = ProbeResponse(200, {"content-type": "text/event-stream"}, b"".join(events))
    monkeypatch.setattr(ConformanceClient, "send", lambda *_: answer)
    (result,) = run_checks([check], client_of("http://127.0.0.1:1", "m"), lambda _: None)
    assert (result.outcome, result.detail) == ("failed", "`message_stop` follows no stop reason")


def test_a_failed_check_shows_what_was_received_and_why_it_matters(mock: MockUpstream) -> None:
    done = run_command(mock.base_url, "--model", "fault-no-done")
    assert done.returncode == 1
    lines = "✗ `data: [DONE]` ends the stream, once\n      received: [DONE] occurs 0 times\n      why it matters: "
    assert lines in done.stdout


def test_a_stream_that_does_not_end_within_the_timeout_skips_its_check(mock: MockUpstream) -> None:
    shown: list[str] = []
    (check,) = [check for check in CHECKS if check.name == "non-ascii-characters"]
    client = client_of(mock.base_url, "fault-slow:delay=0.1,chunks=3000", timeout="1")
    (result,) = run_checks([check], client, shown.append)
    assert (result.outcome, shown) == ("skipped", ["1/1 characters beyond ASCII arrive intact"])
    assert "still generating after 1 s" in result.detail


FLOWING, BUFFERED, SHORT = [(0.1, 10), (1.0, 20)], [(0.99, 10), (1.0, 20)], [(0.01, 10), (0.02, 20)]


@pytest.mark.parametrize(
    ("responses", "outcome"),
    [
        ([FLOWING], "passed"),
        ([BUFFERED, BUFFERED, FLOWING], "passed"),
        ([BUFFERED] * 3, "failed"),
        ([SHORT], "skipped"),
    ],
)
def test_buffering_is_reported_after_three_buffered_streams(
    monkeypatch: pytest.MonkeyPatch, responses: list[list[tuple[float, int]]], outcome: str
) -> None:
    (check,) = [check for check in CHECKS if check.name == "not-buffered"]
    client, chunk_times = client_of("http://127.0.0.1:1", "m"), iter(responses)
    monkeypatch.setattr(client, "post", lambda *_: ProbeResponse(200, {}, chunk_times=next(chunk_times)))
    assert [result.outcome for result in run_checks([check], client, lambda _: None)] == [outcome]


def test_an_unreachable_server_or_invalid_url_exits_with_2() -> None:
    for url in ("http://127.0.0.1:1/v1", "ftp://somewhere"):
        done = run_command(url, "--model", "m")
        assert (done.returncode, done.stdout) == (2, "")
        assert "cannot be checked" in done.stderr
