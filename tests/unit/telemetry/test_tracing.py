"""The end of a call with a trace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openai_compat.core.observation import EndedRequest
from openai_compat.core.trace import Trace
from openai_compat.telemetry.attributes import call_attributes
from openai_compat.telemetry.export import SpanExport
from openai_compat.telemetry.sampling import Sampler
from openai_compat.telemetry.tracing import Tracer

from .test_request_metrics import CALL


class FakeExport(SpanExport):
    """An export that keeps the attributes of calls."""

    def __init__(self) -> None:
        self.attributes: list[dict[str, Any]] = []

    def add(self, ended: EndedRequest, trace: Trace) -> None:
        self.attributes.append(call_attributes(ended, trace))


def end_call(payload: dict[str, Any], **changes: Any) -> tuple[dict[str, Any], Trace]:
    """Return the attributes of a sampled call that has ended, and its trace."""
    export = FakeExport()
    trace = Trace(1, 2, None, 3, is_sampled=True, payload=payload, answer=[b"answer"])
    Tracer(export, Sampler(1.0, follows_parent=False), captures_content=True).observe(
        replace(CALL, trace=trace, **changes)
    )
    return export.attributes[0], trace


def test_an_ended_call_does_not_keep_its_content_in_memory() -> None:
    attributes, trace = end_call({"temperature": 0.5})
    assert attributes["gen_ai.request.temperature"] == 0.5
    assert (trace.payload, trace.answer) == (None, None)


@pytest.mark.parametrize("payload", [{"stop_sequences": 5}, {"stop": {"a": 1}}, {"seed": 2**63}, {"top_p": "high"}])
def test_parameters_of_another_type_are_left_out(payload: dict[str, Any]) -> None:
    attributes, _ = end_call(payload)
    assert not attributes.keys() & {"gen_ai.request.stop_sequences", "gen_ai.request.seed", "gen_ai.request.top_p"}


def test_what_is_passed_through_is_no_chat() -> None:
    attributes, _ = end_call({}, operation="proxy")
    assert attributes["gen_ai.operation.name"] == attributes["openai_compat.endpoint"] == "passthrough"
