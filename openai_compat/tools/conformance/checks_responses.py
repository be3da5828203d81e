"""Checks of the Responses API."""

from __future__ import annotations

import json

from .client import MISSING_ENDPOINT, CheckSkipped, ConformanceClient, expect, require_stream
from .registry import Section

RESPONSES = Section("responses")


@RESPONSES.check(
    "the stream has `response.created` first, rising numbers, one end and no [DONE]",
    why="clients process it with a state machine",
)
def responses_stream(client: ConformanceClient) -> None:
    payload = {"model": client.target.model, "input": "Say hello.", "stream": True}
    response = client.post("responses", payload)
    if response.status in MISSING_ENDPOINT | {400}:
        raise CheckSkipped(f"the Responses API is not supported ({response.status})")
    stream = require_stream(response)
    events = [json.loads(text) for text in stream.data if text != "[DONE]"]
    expect("[DONE]" not in stream.data, "the stream has a [DONE]")
    types = [event["type"] for event in events]
    expect(types == stream.names, "the `event:` lines differ from the types of the events")
    expect(types[0] == "response.created", f"the first event is {types[0]}")
    ends = {"response.completed", "response.incomplete", "response.failed"}
    expect(types[-1] in ends, f"the last event is {types[-1]}")
    numbers = [event["sequence_number"] for event in events]
    expect(numbers == sorted(set(numbers)), f"sequence numbers {numbers[:10]}")
