"""Tests of the reader of declared replies, their truncated streams and their errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.backends.external.backend import ExternalOptions
from openai_compat.core.errors import (
    UpstreamError,
    UpstreamInvalidResponseError,
    UpstreamStatusError,
    UpstreamTruncatedError,
)
from openai_compat.core.streams import PrimedStream
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest, Usage
from tests.support.fake_http_client import (
    EVENTS,
    LINES,
    ScriptedClient,
    ScriptedResponse,
    events,
    lines,
    make,
    make_backend,
    text_of,
)

STREAMED = {"text": "t", "done": "end"}


def read(response: ScriptedResponse, declared: dict[str, Any], **options: Any) -> list[ChatDelta]:
    backend = make_backend(ScriptedClient(response), ExternalOptions(reply=declared, **options))
    request = ChatRequest("external-chat", [{"role": "user", "content": "hi"}], is_streamed=True)
    deltas = PrimedStream(backend.chat(request, CallContext("r")))
    return [delta for delta in deltas if isinstance(delta, ChatDelta)]


@pytest.mark.parametrize(
    ("body", "kind"), [(events({"t": "a"}, {"t": "b"}), EVENTS), (lines({"t": "a"}, {"t": "b"}), LINES)]
)
def test_a_stream_without_its_declared_end_is_truncated(body: bytes, kind: str) -> None:
    for declared in (STREAMED, {"text": "t", "finish_reason": "why"}):
        with pytest.raises(UpstreamTruncatedError):
            read(make([body], kind, is_chunked=True), declared)
    assert text_of(read(make([body], kind, is_chunked=True), {"text": "t"})) == "ab"


def test_a_repeated_end_gives_one_finish_reason() -> None:
    deltas = read(make([lines({"t": "a"}, {"end": True}, {"end": True})], LINES, is_chunked=True), STREAMED)
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["stop"]


def test_a_cumulative_answer_must_not_change() -> None:
    declared = {"text": "t", "cumulative": True}
    assert text_of(read(make([events({"t": "a"}, {"t": "ab"})], EVENTS, is_chunked=True), declared)) == "ab"
    with pytest.raises(UpstreamInvalidResponseError, match="changed earlier text"):
        read(make([events({"t": "ab"}, {"t": "ac"})], EVENTS, is_chunked=True), declared)


def test_a_reply_without_the_declared_text_is_invalid() -> None:
    with pytest.raises(UpstreamInvalidResponseError, match=r"nothing at `data\.answer`"):
        read(make({"reply": "elsewhere"}), {"text": "data.answer"})


def test_a_reply_that_is_not_the_declared_json_is_invalid() -> None:
    with pytest.raises(UpstreamInvalidResponseError, match="not valid JSON"):
        read(make(b"It is sunny.", "text/plain"), {"format": "json", "text": "t"})


def test_an_expression_can_build_tool_calls() -> None:
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


def test_text_parts_are_joined_and_reasoning_is_separate() -> None:
    declared = {"text": "out[?kind=='say'].words", "reasoning": "out[?kind=='think'].words | [0]"}
    deltas = read(make({"out": [{"kind": "think", "words": "Hm."}, {"kind": "say", "words": "Yes"}]}), declared)
    assert text_of(deltas) == "Yes"
    assert [delta.reasoning for delta in deltas if delta.reasoning] == ["Hm."]


def test_an_error_with_status_200_is_an_error() -> None:
    errors = {"when": "not_ok", "message": "why", "code": "code", "bad_input": ["E7"]}
    with pytest.raises(UpstreamStatusError) as raised:
        read(make({"not_ok": True, "why": "Too long.", "code": "E7", "t": "x"}), {"text": "t"}, errors=errors)
    assert (raised.value.upstream_status, raised.value.code, raised.value.message) == (400, "E7", "Too long.")
    with pytest.raises(UpstreamError, match=r"Another\."):
        read(make({"not_ok": True, "why": "Another.", "code": "E8"}), {"text": "t"}, errors=errors)


NAMED = (
    b'event: hello\ndata: {"session": "s-4"}\n\n'
    b"event: token\ndata: Hel\n\nevent: token\ndata: {}\n\nevent: token\ndata:  lo\n\n"
    b'event: cost\ndata: {"in": 7, "out": 3}\n\nevent: bye\ndata:\n\n'
)


def test_events_are_distinguished_by_name_and_may_be_text() -> None:
    declared = {
        "format": "sse",
        "text": "event == 'token' && data",
        "done": "event == 'bye'",
        "usage": {"prompt_tokens": "in", "completion_tokens": "out"},
        "ids": {"session": "session"},
    }
    deltas = read(make([NAMED], EVENTS, is_chunked=True), declared)
    assert text_of(deltas) == "Hel{} lo"
    assert [delta.usage for delta in deltas if delta.usage] == [Usage(7, 3)]
    cut = NAMED[: NAMED.index(b"event: bye")]
    with pytest.raises(UpstreamTruncatedError):
        read(make([cut], EVENTS, is_chunked=True), declared)


@pytest.mark.parametrize("data", [b'{"reason": "It fell over."}', b"It fell over.", b'{"message": "It fell over."}'])
def test_an_event_named_error_is_an_error(data: bytes) -> None:
    body = b"event: token\ndata: Hel\n\nevent: error\ndata: " + data + b"\n\n"
    errors = {"message": "data || reason || message"}
    with pytest.raises(UpstreamError, match=r"It fell over\."):
        read(make([body], EVENTS, is_chunked=True), {"format": "sse", "text": "data"}, errors=errors)


def test_a_key_named_event_overrides_the_event_name() -> None:
    body = b'event: message\ndata: {"event": "token", "t": "a"}\n\n'
    assert text_of(read(make([body], EVENTS), {"text": "event == 'token' && t"})) == "a"


def test_a_cumulative_event_without_text_is_skipped() -> None:
    declared = {"text": "parts[].t", "cumulative": True, "done": "end"}
    body = lines({"parts": [{"t": "a"}]}, {"parts": [{"t": "a"}, {"t": "b"}]}, {"parts": []}, {"end": True})
    assert text_of(read(make([body], LINES, is_chunked=True), declared)) == "ab"


def test_of_a_list_the_first_item_is_used() -> None:
    declared = {
        "text": "all[].t",
        "finish_reason": "all[].why",
        "finish_reasons": {"LIMIT": "length"},
        "usage": {"prompt_tokens": "all[].i", "completion_tokens": "all[].o"},
    }
    deltas = read(make({"all": [{"t": "a"}, {"t": "b"}, {"why": "LIMIT", "i": 5, "o": 2}]}), declared)
    assert (text_of(deltas), deltas[-1].finish_reason, deltas[-2].usage) == ("ab", "length", Usage(5, 2))


@pytest.mark.parametrize("declared", [1402, "1402"])
@pytest.mark.parametrize("reported", [1402, "1402"])
def test_a_code_matches_as_a_number_and_as_a_string(declared: int | str, reported: int | str) -> None:
    errors = {"when": "bad", "code": "bad[].n", "rate_limit": [declared], "retry_after": {"path": "bad[].again"}}
    with pytest.raises(UpstreamStatusError) as limited:
        read(make({"bad": [{"n": reported, "again": 3}]}), {"text": "t"}, errors=errors)
    assert (limited.value.upstream_status, limited.value.headers) == (429, {"retry-after": "3"})


def test_an_error_is_classified_by_the_status_that_it_names() -> None:
    with pytest.raises(UpstreamStatusError) as limited:
        read(make({"failed": True, "status": 429, "message": "Later."}), {"text": "t"}, errors={"when": "failed"})
    assert (limited.value.upstream_status, limited.value.message) == (429, "Later.")


def test_text_after_an_early_end_precedes_the_finish_reason_and_characters_stay_whole() -> None:
    content = lines({"t": "\ud83d", "end": True}, {"t": "\ude00"})
    deltas = read(make([content], LINES, is_chunked=True), STREAMED)
    assert deltas == [ChatDelta("\U0001f600"), ChatDelta(finish_reason="stop")]
