"""CPU that traces add to a call, by share of sampled calls, `python -m bench.trace_cost`.

Making, encoding and dropping the spans of a call with one attempt is measured in one process. Sending the bytes is left
out. It writes `results/trace-cost.md`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan

from bench.machine import describe_hardware
from bench.paths import RESULTS
from openai_compat.core.observation import EndedRequest
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.types import Usage
from openai_compat.telemetry import export
from openai_compat.telemetry.tracing import Tracer, open_tracer

CALLS: Final = 6_000
ROUND: Final = 200
"""Calls after which the exporter gets a turn, so that its queue never overflows."""
REPEATS: Final = 5
SHARES: Final = (0.0, 0.1, 1.0)
GOAL_US: Final = 20
ENTRY: Final = ModelConfig("gpt-4o", "openai", base_url="https://api.openai.com/v1")
PAYLOAD: Final = {"model": "gpt-4o", "temperature": 0.2, "max_tokens": 500}


class EncodingExporter:
    """Exporter that encodes spans and sends nothing."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def export(self, spans: Sequence[ReadableSpan]) -> None:
        """Encode the spans as OTLP."""
        encode_spans(spans).SerializePartialToString()

    def shutdown(self) -> None:
        """Do nothing."""


def main() -> None:
    """Measure each share, and write the table."""
    vars(export)["OTLPSpanExporter"] = EncodingExporter
    rows = [f"| {share:.0%} | {median(_measure(share) for _ in range(REPEATS)):.1f} |" for share in SHARES]
    machine = describe_hardware()
    head = [
        "# Traces: CPU for each call",
        "",
        f"{machine['cores']} cores of {machine['cpu']}, Python {machine['python']}. Medians of {REPEATS}. Goal: at "
        f"most {GOAL_US} µs with a share of 10 %.",
        "",
        "| sampled | µs |",
        "| --- | --- |",
    ]
    text = "\n".join([*head, *rows]) + "\n"
    (RESULTS / "trace-cost.md").write_text(text)
    print(text)


def _measure(share: float) -> float:
    """Return the microseconds of CPU for one call."""
    tracer = open_tracer(
        Settings(
            otel_exporter_otlp_endpoint="http://127.0.0.1:4318",
            otel_traces_sampler="parentbased_traceidratio",
            otel_traces_sampler_arg=share,
        )
    )
    assert tracer is not None
    start = time.process_time()
    for number in range(CALLS):
        _trace_call(tracer)
        if number % ROUND == 0:
            time.sleep(0.01)
    tracer.close()
    return (time.process_time() - start) / CALLS * 1e6


def _trace_call(tracer: Tracer) -> None:
    trace = tracer.start({})
    trace.headers({"user-agent": "bench"}, trace.attempt_id)
    if trace.is_sampled:
        trace.payload = PAYLOAD
    usage = Usage(300, 120)
    tracer.observe(
        EndedRequest(
            "req_1", "chat/completions", 200, None, "gpt-4o", "openai", "", 1.0, 3.0, 1.4, True, usage, [], None, None,
            None, ENTRY, "", trace,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
