"""Answers of upstreams that speak the Messages API, passed through."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from openai_compat.core.errors import UpstreamInvalidResponseError, UpstreamStatusError
from openai_compat.core.types import CallContext
from openai_compat.services.inference_call import MESSAGES_PATH, InferenceCall
from openai_compat.services.messages.native import forward_message
from tests.support.messages_events import parse_events, read_message
from tests.support.scripted_response import ScriptedResponse

MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**MESSAGE, "stop_reason": None, "usage": {"input_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
]


def unnamed(*events: dict[str, Any]) -> bytes:
    """Return events without the lines with their names."""
    return b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)


def forward(*blocks: bytes, stream: bool = True) -> Any:
    """Return the answer to a call whose upstream sends these blocks."""
    backend: Any = SimpleNamespace(
        upstream_model="m", forward_messages=lambda *_: ScriptedResponse(*blocks), to_refusal=lambda _: None
    )
    payload = {"model": "m", "messages": [], "stream": stream}
    call = InferenceCall(MESSAGES_PATH, json.dumps(payload).encode(), payload, "m")
    return forward_message(backend, call, CallContext("req_1"))


def test_events_get_the_names_without_which_clients_skip_them() -> None:
    events = parse_events(b"".join(forward(unnamed(*EVENTS))))
    assert events == EVENTS
    assert read_message(events)["content"] == [{"type": "text", "text": "Hi"}]


@pytest.mark.parametrize("error", [{"message": "Boom.", "type": "server_error"}, "Boom."])
def test_an_error_in_openais_form_in_the_middle_is_not_skipped(error: Any) -> None:
    """Anthropic's client for Python returned what came before it as a complete message."""
    events = parse_events(b"".join(forward(unnamed(*EVENTS[:3], {"error": error}))))
    assert events == [*EVENTS[:3], {"type": "error", "error": {"type": "api_error", "message": "Boom."}}]


def test_an_error_in_place_of_a_stream_keeps_its_type() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Busy."}}
    with pytest.raises(UpstreamStatusError, match="Busy") as caught:
        forward(json.dumps(error).encode())
    assert caught.value.code == "overloaded"


@pytest.mark.parametrize("body", [json.dumps({**MESSAGE, "stop_reason": "end_turn"}).encode(), b"<html>", b"[]"])
def test_another_body_in_place_of_a_stream_is_no_answer(body: bytes) -> None:
    with pytest.raises(UpstreamInvalidResponseError):
        forward(body)


@pytest.mark.parametrize("reason", [None, ""])
def test_a_complete_message_without_a_reason_is_no_answer(reason: str | None) -> None:
    with pytest.raises(UpstreamInvalidResponseError, match="stop_reason"):
        forward(json.dumps({**MESSAGE, "stop_reason": reason}).encode(), stream=False)
