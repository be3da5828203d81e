"""Traces that a collector receives from a live server, through failover and in every protocol."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.support.live_server import LiveServer
from tests.support.raw_server import RawServer, read_request
from tests.support.scripted_chat import END, text_events
from tests.support.trace_collector import TraceCollector, attributes_of
from tests.support.waiting import wait_until

USAGE = (
    b'data: {"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":8,"completion_tokens":2}}'
)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
FAILURE = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
CLIENTS_SPAN = "00f067aa0ba902b7"
PROMPT = "What is the capital of France?"


class TracedSite:
    """A server with a failing and a healthy upstream, and the collector of its traces."""

    def __init__(self, server: LiveServer, collector: TraceCollector, heads: list[str]) -> None:
        self.server = server
        self.collector = collector
        self.heads = heads
        self._numbers = iter(range(1, 1000))

    def post(self, path: str, payload: dict[str, Any], **headers: str) -> str:
        """Send a call within a client's trace, and return the trace's id."""
        trace_id = f"{next(self._numbers):032x}"
        sent = {"traceparent": f"00-{trace_id}-{CLIENTS_SPAN}-01", **headers}
        requests.post(f"{self.server.base_url}{path}", json=payload, headers=sent, timeout=20)
        return trace_id


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TracedSite]:
    folder = tmp_path_factory.mktemp("traces")
    heads: list[str] = []

    def record(client: socket.socket, answer: bytes) -> None:
        heads.append(read_request(client).decode())
        client.sendall(answer)

    with (
        RawServer(lambda client: record(client, FAILURE)) as failing,
        RawServer(
            lambda client: record(client, ANSWER + text_events("Pa", "ris").replace(END, USAGE + b"\n\n" + END))
        ) as healthy,
        TraceCollector() as collector,
        LiveServer(_environment(folder, failing.port, healthy.port, collector.url)) as server,
    ):
        yield TracedSite(server, collector, heads)


def _environment(folder: Path, failing: int, healthy: int, collector: str) -> dict[str, str]:
    models = [
        {"name": "first", "kind": "openai", "base_url": f"http://127.0.0.1:{failing}/v1", "fallbacks": ["second"],
         "retries": 0, "cooldown": 0, "responses": "translated"},
        {"name": "second", "kind": "openai", "base_url": f"http://127.0.0.1:{healthy}/v1", "upstream_model": "big",
         "responses": "translated"},
        {"name": "echo", "kind": "echo"},
    ]  # fmt: skip
    (folder / "models.json").write_text(json.dumps(models))
    return {
        "MODELS_FILE": str(folder / "models.json"),
        "OPENAI_API_KEY": "sk-upstream",
        "DATA_DIR": str(folder / "data"),
        "LOG_FORMAT": "json",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_SERVICE_NAME": "gateway",
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true",
    }


CALLS = {
    "/chat/completions": {"messages": [{"role": "user", "content": PROMPT}]},
    "/responses": {"input": PROMPT, "store": False},
    "/messages": {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 50},
}


@pytest.mark.parametrize("path", CALLS)
def test_a_trace_has_the_call_and_a_child_for_each_attempt(site: TracedSite, path: str) -> None:
    start = len(site.heads)
    trace_id = site.post(path, {"model": "first", "stream": True, **CALLS[path]})
    call, failed, answered = site.collector.spans_of(trace_id, 3)
    assert (call.kind, failed.kind, answered.kind) == (Span.SPAN_KIND_SERVER, *[Span.SPAN_KIND_CLIENT] * 2)
    assert call.parent_span_id.hex() == CLIENTS_SPAN
    assert failed.parent_span_id == answered.parent_span_id == call.span_id
    assert (call.name, failed.name, answered.name) == ("chat first", "chat first", "chat second")
    assert (call.status.code, failed.status.code) == (Status.STATUS_CODE_UNSET, Status.STATUS_CODE_ERROR)
    assert call.start_time_unix_nano <= failed.start_time_unix_nano <= failed.end_time_unix_nano
    assert failed.end_time_unix_nano <= answered.start_time_unix_nano < answered.end_time_unix_nano
    sent = [re.findall(r"(?im)^traceparent: (\S+)", head) for head in site.heads[start:]]
    assert sent == [[f"00-{trace_id}-{span.span_id.hex()}-01"] for span in (failed, answered)]


@pytest.mark.parametrize("path", CALLS)
def test_spans_have_the_attributes_of_the_conventions(site: TracedSite, path: str) -> None:
    trace_id = site.post(path, {"model": "first", "stream": True, "temperature": 0.5, **CALLS[path]})
    call, failed, answered = (attributes_of(span.attributes) for span in site.collector.spans_of(trace_id, 3))
    assert call["gen_ai.operation.name"] == "chat"
    assert call["gen_ai.request.model"] == "first"
    assert call["gen_ai.response.model"] == "second"
    assert call["gen_ai.request.temperature"] == 0.5
    assert call["gen_ai.usage.output_tokens"] == 2
    assert call["http.response.status_code"] == 200
    assert json.loads(call["gen_ai.input.messages"])[-1]["parts"] == [{"type": "text", "content": PROMPT}]
    assert json.loads(call["gen_ai.output.messages"])[0]["parts"] == [{"type": "text", "content": "Paris"}]
    assert failed["error.type"] == "server_error"
    assert answered["gen_ai.request.model"] == "big"
    assert answered["server.address"] == "127.0.0.1"
    assert answered["gen_ai.response.time_to_first_chunk"] > 0
    assert site.collector.resources[0]["service.name"] == "gateway"
    assert set(site.collector.paths) == {"/v1/traces"}


def test_a_model_without_a_route_has_one_attempt(site: TracedSite) -> None:
    trace_id = site.post("/chat/completions", {"model": "echo", **CALLS["/chat/completions"]})
    call, attempt = site.collector.spans_of(trace_id, 2)
    assert attempt.parent_span_id == call.span_id
    assert call.start_time_unix_nano <= attempt.start_time_unix_nano


def test_log_lines_have_the_id_of_the_trace(site: TracedSite) -> None:
    trace_id = site.post("/chat/completions", {"model": "first", **CALLS["/chat/completions"]})

    def lines() -> list[dict[str, Any]]:
        found = [json.loads(line) for line in site.server.log().splitlines() if line.startswith("{")]
        return [line for line in found if line.get("trace_id") == trace_id]

    wait_until(lambda: len(lines()) >= 2, "the access line and that of the failed attempt")


def test_a_client_may_decide_against_its_trace(site: TracedSite) -> None:
    trace_id = "b" * 32
    headers = {"traceparent": f"00-{trace_id}-{CLIENTS_SPAN}-00"}
    start = len(site.heads)
    payload = {"model": "second", **CALLS["/chat/completions"]}
    requests.post(f"{site.server.base_url}/chat/completions", json=payload, headers=headers, timeout=20)
    later = site.post("/chat/completions", {"model": "echo", **CALLS["/chat/completions"]})
    site.collector.spans_of(later, 2)
    assert not [span for span in site.collector.spans if span.trace_id.hex() == trace_id]
    assert re.search(rf"(?im)^traceparent: 00-{trace_id}-[0-9a-f]{{16}}-00", site.heads[start])


def test_other_requests_have_no_spans(site: TracedSite) -> None:
    count = len(site.collector.spans)
    requests.get(f"{site.server.base_url}/models", timeout=20)
    later = site.post("/chat/completions", {"model": "echo", **CALLS["/chat/completions"]})
    site.collector.spans_of(later, 2)
    assert len(site.collector.spans) == count + 2
