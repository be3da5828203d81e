"""A real Prometheus that scrapes four workers, through a killed worker and a rolling reload."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.prometheus_server import Prometheus, running_prometheus
from tests.support.tools import ROOT
from tests.support.waiting import wait_until

RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
WORKERS = 4
CALLS = 'openai_compat_requests_total{endpoint="chat/completions"}'
COUNTERS = ("_total", "_count", "_sum", "_bucket")
"""Ends of the names of what never goes back."""
CHAT = {"model": "mock-gpt-model", "messages": [{"role": "user", "content": "one two three"}]}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(workers=WORKERS, has_metrics_port=True) as live:
        yield live


@pytest.fixture(scope="module")
def prometheus(server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with running_prometheus(tmp_path_factory.mktemp("prometheus"), server.metrics_port, RULES) as running:
        yield running


def chat(server: LiveServer, count: int) -> None:
    """Make calls over new connections, so that all workers get some. Every third one is streamed."""

    def call(number: int) -> None:
        response = requests.post(
            f"{server.base_url}/chat/completions", json={**CHAT, "stream": number % 3 == 0}, timeout=60
        )
        assert response.status_code == 200

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(count)))


def wait_for_sum(prometheus: Prometheus, expression: str, expected: float) -> None:
    wait_until(
        lambda: prometheus.value(f"sum({expression})") == expected,
        lambda: f"{expected} in {expression}: {prometheus.query(expression)}",
        seconds=60,
    )


def test_sums_equal_the_calls_made_and_no_counter_goes_back(server: LiveServer, prometheus: Prometheus) -> None:
    chat(server, 60)
    wait_for_sum(prometheus, CALLS, 60)

    victim = min(server.workers())
    os.kill(victim, signal.SIGKILL)
    wait_for_sum(prometheus, 'openai_compat_worker_exits_total{kind="crash"}', 1)
    chat(server, 60)
    wait_for_sum(prometheus, CALLS, 120)
    wait_for_sum(prometheus, "openai_compat_workers", WORKERS)

    made = 120
    old = server.workers()
    server.process.send_signal(signal.SIGHUP)
    while old & server.workers():
        chat(server, 20)
        made += 20
    wait_for_sum(prometheus, 'openai_compat_worker_exits_total{kind="orderly"}', WORKERS)
    chat(server, 30)
    made += 30
    wait_for_sum(prometheus, CALLS, made)
    wait_for_sum(prometheus, "gen_ai_server_request_duration_seconds_count", made)
    wait_for_sum(prometheus, 'gen_ai_client_token_usage_sum{gen_ai_token_type="input"}', 3 * made)
    wait_for_sum(prometheus, "openai_compat_upstream_attempts_total", made)
    wait_for_sum(prometheus, "openai_compat_worker_starts_total", 2 * WORKERS + 1)
    counters = [name for name in prometheus.names() if name.endswith(COUNTERS)]
    assert len(counters) > 20
    assert {name: prometheus.value(f"max(resets({name}[30m]))") for name in counters} == dict.fromkeys(counters, 0)
