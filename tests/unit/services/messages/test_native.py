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
    sent = [*EVENTS[:3], *EVENTS[2:3] * 2, *EVENTS[3:]]
    events = parse_events(b"".join(forward(*map(unnamed, sent))))
    assert events == sent
    assert read_message(events)["content"] == [{"type": "text", "text": "HiHiHi"}]


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


def named(event: dict[str, Any], cut: int = 0) -> bytes:
    """Return an event, broken if `cut` bytes of its data are missing."""
    data = json.dumps(event, separators=(",", ":")).encode()
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), data[: len(data) - cut])


def delta(text: str, index: int = 0, key: str = "text") -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": f"{key}_delta", key: text}}


@pytest.mark.parametrize(
    "broken",
    [
        named(delta("you"), cut=1),
        named(delta("you"), cut=len('you"}}')),
        named(delta("you"), cut=len('"delta":{"type":"text_delta","text":"you"}}')),
        named(delta("you")).replace(b'"you"', b'"y"ou"'),
        b'event: content_block_delta\ndata: {"type":\n\n',
        b"event: content_block_delta\ndata: \n\n",
        unnamed(delta("you")).replace(b"}}", b"}"),
        named({**EVENTS[1], "index": 1}, cut=1),
        named({"type": "content_block_stop", "index": 0}, cut=1),
    ],
)
def test_a_broken_event_with_content_is_an_error(broken: bytes) -> None:
    """It was relayed as it is, so that each client decided for itself what to make of it."""
    before = [named(event) for event in [*EVENTS[:3], delta(" and")]]
    events = iter(forward(*before, broken, *map(named, EVENTS[3:])))
    assert [next(events) for _ in before] == before
    with pytest.raises(UpstreamInvalidResponseError, match="broken event"):
        next(events)


def test_a_broken_event_before_the_first_content_has_a_status() -> None:
    with pytest.raises(UpstreamInvalidResponseError, match="broken event"):
        forward(named(EVENTS[0], cut=1))


@pytest.mark.parametrize("broken", [b"event: ping\ndata: {\n\n", b'data: {"id":"x","object\n\n'])
def test_a_broken_event_without_content_is_dropped(broken: bytes, caplog: pytest.LogCaptureFixture) -> None:
    content = b"".join(forward(*map(named, EVENTS[:3]), broken, *map(named, EVENTS[3:])))
    assert content == b"".join(map(named, EVENTS))
    assert "dropped a broken event" in caplog.text


def test_deltas_of_all_kinds_pass_byte_for_byte() -> None:
    start = EVENTS[1]
    thinking = [{**start, "content_block": {"type": "thinking", "thinking": ""}}]
    thinking += [delta(text, key="thinking") for text in ("Hm", 'a "word"', "\\", "\ud83d\ude00", "")]
    call = [{**start, "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}}]
    call += [
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": text}}
        for text in ('{"a"', ":1", "}")
    ]
    sent = [named(event) for event in [EVENTS[0], *thinking, *call, *EVENTS[4:]]]
    sent.insert(3, b": a comment\n\n")
    assert list(forward(*sent)) == sent
    assert b"".join(forward(b"".join(sent))) == b"".join(sent)


def test_an_error_whose_bytes_begin_like_a_delta_is_an_error() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Busy."}}
    relay = forward(*map(named, EVENTS[:3]), named(delta(" and")), named(error))
    assert parse_events(b"".join(relay))[-1] == error
    assert relay.failure is not None
