"""Replies read by what a row declares: what is there, what is cut, and what cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.backends.external import ExternalOptions
from openai_compat.domain import CallContext, ChatDelta, ChatRequest, Usage
from openai_compat.errors import UpstreamCutError, UpstreamError, UpstreamReplyError, UpstreamStatusError
from openai_compat.streams import PrimedStream
from tests.fakes.scripted_api import (
    EVENTS,
    LINES,
    ScriptedForwarder,
    ScriptedReply,
    events,
    lines,
    make,
    make_backend,
    text_of,
)

STREAMED = {"text": "t", "done": "end"}


def read(reply: ScriptedReply, declared: dict[str, Any], **options: Any) -> list[ChatDelta]:
    backend = make_backend(ScriptedForwarder(reply), ExternalOptions(reply=declared, **options))
    request = ChatRequest("external-chat", [{"role": "user", "content": "hi"}], is_streamed=True)
    deltas = PrimedStream(backend.chat(request, CallContext("r")))
    return [delta for delta in deltas if isinstance(delta, ChatDelta)]


@pytest.mark.parametrize(
    ("body", "kind"), [(events({"t": "a"}, {"t": "b"}), EVENTS), (lines({"t": "a"}, {"t": "b"}), LINES)]
)
def test_a_stream_that_does_not_say_its_declared_end_was_cut(body: bytes, kind: str) -> None:
    for declared in (STREAMED, {"text": "t", "finish_reason": "why"}):
        with pytest.raises(UpstreamCutError):
            read(make([body], kind, is_chunked=True), declared)
    assert text_of(read(make([body], kind, is_chunked=True), {"text": "t"})) == "ab"


def test_the_declared_end_ends_it_once() -> None:
    deltas = read(make([lines({"t": "a"}, {"end": True}, {"end": True})], LINES, is_chunked=True), STREAMED)
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["stop"]


def test_what_repeats_itself_must_say_the_same() -> None:
    declared = {"text": "t", "cumulative": True}
    assert text_of(read(make([events({"t": "a"}, {"t": "ab"})], EVENTS, is_chunked=True), declared)) == "ab"
    with pytest.raises(UpstreamReplyError, match="changed what it had said"):
        read(make([events({"t": "ab"}, {"t": "ac"})], EVENTS, is_chunked=True), declared)


def test_no_text_where_it_is_declared_is_no_answer() -> None:
    with pytest.raises(UpstreamReplyError, match=r"nothing at `data\.answer`"):
        read(make({"reply": "elsewhere"}), {"text": "data.answer"})


def test_declared_json_that_is_none() -> None:
    with pytest.raises(UpstreamReplyError, match="not valid JSON"):
        read(make(b"It is sunny.", "text/plain"), {"format": "json", "text": "t"})


def test_tool_calls_in_a_form_that_an_expression_makes() -> None:
    declared = {
        "text": "say",
        "tool_calls": "calls[].{id: key, function: {name: tool, arguments: with}}",
        "usage": {"prompt_tokens": "n.i", "completion_tokens": "n.o", "cached_tokens": "n.c"},
    }
    reply = {"calls": [{"key": "c1", "tool": "get_weather", "with": {"city": "Oslo"}}], "n": {"i": 5, "o": 2, "c": 1}}
    deltas = read(make(reply), declared)
    (call,) = [call for delta in deltas for call in delta.tool_calls]
    assert (call.id, call.name, json.loads(call.arguments)) == ("c1", "get_weather", {"city": "Oslo"})
    assert deltas[-1].finish_reason == "tool_calls"
    assert [delta.usage for delta in deltas if delta.usage] == [Usage(5, 2, cached_tokens=1)]


def test_text_in_parts_and_thoughts() -> None:
    declared = {"text": "out[?kind=='say'].words", "reasoning": "out[?kind=='think'].words | [0]"}
    deltas = read(make({"out": [{"kind": "think", "words": "Hm."}, {"kind": "say", "words": "Yes"}]}), declared)
    assert text_of(deltas) == "Yes"
    assert [delta.reasoning for delta in deltas if delta.reasoning] == ["Hm."]


def test_an_error_with_status_200_is_an_error() -> None:
    errors = {"when": "not_ok", "message": "why", "code": "code", "bad_input": ["E7"]}
    with pytest.raises(UpstreamStatusError) as told:
        read(make({"not_ok": True, "why": "Too long.", "code": "E7", "t": "x"}), {"text": "t"}, errors=errors)
    assert (told.value.upstream_status, told.value.code, told.value.message) == (400, "E7", "Too long.")
    with pytest.raises(UpstreamError, match=r"Another\."):
        read(make({"not_ok": True, "why": "Another.", "code": "E8"}), {"text": "t"}, errors=errors)
