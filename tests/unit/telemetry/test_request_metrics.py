"""Metrics of ended requests, as a scrape shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from openai_compat.core.observation import AttemptRecord, EndedRequest
from openai_compat.core.settings import ModelConfig
from openai_compat.core.turns import TimeSlices
from openai_compat.core.types import Usage
from openai_compat.state.worker_slots import Slot, SlotsFile
from openai_compat.telemetry import families
from openai_compat.telemetry.families import Family
from openai_compat.telemetry.request_metrics import RequestMetrics
from openai_compat.telemetry.series import SeriesTable
from openai_compat.telemetry.totals import TotalsReader

GEN_AI = ("chat", "openai", "m")
CALL = EndedRequest(
    request_id="req_1",
    operation="chat/completions",
    status=200,
    error=None,
    model="m",
    kind="openai",
    served_by="",
    started_at=10.0,
    ended_at=12.0,
    first_token_at=10.5,
    is_streamed=False,
    usage=Usage(100, 31),
    attempts=(AttemptRecord("m", 10.1, 10.4),),
    project_id=None,
    key_id=None,
    key_name=None,
    served=ModelConfig("m", "openai"),
    adapted="",
    trace=None,
)


class Counted:
    """What the metrics show after some calls."""

    def __init__(self, descriptor: int, metrics: RequestMetrics) -> None:
        self._totals = TotalsReader(descriptor)
        self.metrics = metrics

    def observe(self, **changes: Any) -> None:
        self.metrics.observe(replace(CALL, **changes))

    def of(self, family: Family) -> dict[tuple[str, ...], Any]:
        """Return the value of each series of a counter, or the count and the sum of a histogram."""
        found = self._totals.read(TimeSlices())[family.name]
        if family.kind == "histogram":
            return {labels: (sum(values[:-1]), values[-1]) for labels, values in found.items() if sum(values)}
        return {labels: values[0] for labels, values in found.items()}


@pytest.fixture
def counted() -> Iterator[Counted]:
    file = SlotsFile()
    metrics = RequestMetrics(SeriesTable(Slot(file.descriptor, 0)), {"m", "backup"})
    metrics.add_endpoints(["list_models", "create_chat_completion"])
    yield Counted(file.descriptor, metrics)
    file.close()


def test_a_call_is_counted_with_its_time_and_its_tokens(counted: Counted) -> None:
    counted.observe()
    counted.observe()
    assert counted.of(families.REQUESTS) == {("chat/completions", "m", "200", ""): 2}
    assert counted.of(families.REQUEST_DURATION) == {(*GEN_AI, ""): (2, 4.0)}
    assert counted.of(families.TOKEN_USAGE) == {("input", *GEN_AI): (2, 200), ("output", *GEN_AI): (2, 62)}
    assert counted.of(families.ATTEMPTS) == {("m", ""): 2}
    assert counted.of(families.ATTEMPT_DURATION) == {("m",): (2, pytest.approx(3.8))}
    assert counted.of(families.TIME_TO_FIRST_TOKEN) == {}, "it is not streamed"


def test_a_stream_has_a_first_token_and_a_time_per_token(counted: Counted) -> None:
    counted.observe(is_streamed=True)
    assert counted.of(families.TIME_TO_FIRST_TOKEN) == {GEN_AI: (1, 0.5)}
    assert counted.of(families.TIME_PER_TOKEN) == {GEN_AI: (1, 1.5 / 30)}
    assert counted.of(families.ATTEMPT_FIRST_TOKEN) == {("m",): (1, pytest.approx(0.3))}
    assert counted.of(families.STREAMS) == {("m", "complete"): 1}


def test_a_stream_that_failed_is_an_error_although_its_status_is_200(counted: Counted) -> None:
    counted.observe(is_streamed=True, error="upstream_cut")
    assert counted.of(families.REQUESTS) == {("chat/completions", "m", "200", "upstream_cut"): 1}
    assert counted.of(families.REQUEST_DURATION) == {(*GEN_AI, "upstream_cut"): (1, 2.0)}
    assert counted.of(families.STREAMS) == {("m", "cut"): 1}
    assert counted.of(families.ATTEMPTS) == {("m", "upstream_cut"): 1}


def test_a_client_that_disconnects_is_counted_as_such(counted: Counted) -> None:
    counted.observe(is_streamed=True, status=499)
    assert counted.of(families.REQUESTS) == {("chat/completions", "m", "499", "request_cancelled"): 1}
    assert counted.of(families.STREAMS) == {("m", "client_gone"): 1}


def test_retries_and_failovers_are_counted_by_the_target_that_is_asked(counted: Counted) -> None:
    failed = {"ended_at": 10.2, "error": "upstream_timeout"}
    counted.observe(
        attempts=(
            AttemptRecord("m", 10.0, **failed),
            AttemptRecord("m", 10.3, **failed),
            AttemptRecord("backup", 10.4, 10.5, 12.0),
        )
    )
    assert counted.of(families.ATTEMPTS) == {("m", "upstream_timeout"): 2, ("backup", ""): 1}
    assert counted.of(families.RETRIES) == {("m",): 1}
    assert counted.of(families.FAILOVERS) == {("backup",): 1}


def test_a_stream_that_another_target_continued_is_told_from_others(counted: Counted) -> None:
    attempts = (AttemptRecord("m", 10.0, 10.1, 10.5, "upstream_cut"), AttemptRecord("backup", 10.5, 10.6, 12.0))
    counted.observe(is_streamed=True, attempts=attempts)
    assert counted.of(families.STREAMS) == {("m", "continued"): 1}


def test_names_of_clients_and_upstreams_become_no_labels(counted: Counted) -> None:
    for number in range(50):
        counted.observe(model=f"guess-{number}", attempts=(AttemptRecord(f"guess-{number}", 10.0),))
        counted.observe(status=400, error=f"code-of-an-upstream-{number}")
        counted.observe(operation=f"view-{number}")
    assert counted.of(families.REQUESTS) == {
        ("chat/completions", "other", "200", ""): 50,
        ("chat/completions", "m", "400", "other"): 50,
        ("other", "m", "200", ""): 50,
    }
    assert set(counted.of(families.ATTEMPTS)) == {("other", ""), ("m", ""), ("m", "other")}


def test_a_name_that_a_pattern_matches_is_counted_by_its_target(counted: Counted) -> None:
    counted.observe(model="claude-any", served_by="m")
    assert counted.of(families.REQUESTS) == {("chat/completions", "m", "200", ""): 1}


def test_requests_that_ask_no_model_have_no_genai_metrics(counted: Counted) -> None:
    counted.observe(operation="list_models", model="", served=None, usage=None, attempts=())
    assert counted.of(families.REQUESTS) == {("list_models", "", "200", ""): 1}
    assert counted.of(families.REQUEST_DURATION) == {}


def test_a_call_that_is_refused_before_its_model_is_known_has_the_name_of_its_endpoint(counted: Counted) -> None:
    counted.observe(
        operation="create_chat_completion", model="", served=None, status=401, error="invalid_api_key", attempts=()
    )
    assert counted.of(families.REQUESTS) == {("chat/completions", "", "401", "invalid_api_key"): 1}


def test_refusals_of_this_server_are_no_errors_of_an_upstream(counted: Counted) -> None:
    counted.observe(status=429, error="rate_limit_exceeded", attempts=(), usage=None)
    counted.observe(status=429, error="rate_limit_exceeded", usage=None)  # the upstream's
    counted.observe(status=429, error="insufficient_quota", attempts=(), usage=None)
    counted.observe(status=429, error="insufficient_quota", usage=None)  # the upstream's
    counted.observe(status=503, error="server_overloaded", attempts=(), usage=None)
    rejected = {("rate_limit_exceeded",): 1, ("insufficient_quota",): 1, ("server_overloaded",): 1}
    assert counted.of(families.REJECTED) == rejected


def test_parts_of_the_tokens_are_counted(counted: Counted) -> None:
    counted.observe(usage=Usage(100, 50, cached_tokens=60, reasoning_tokens=20))
    assert counted.of(families.TOKEN_DETAILS) == {("m", "cached"): 60, ("m", "reasoning"): 20}
