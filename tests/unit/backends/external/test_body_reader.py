"""Tests of format detection and of reading replies of unknown shape."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from typing import Any

import pytest

from openai_compat.backends.external import known_shapes
from openai_compat.core.errors import UpstreamError, UpstreamInvalidResponseError, UpstreamTruncatedError
from openai_compat.core.streams import HEARTBEAT, close_stream
from openai_compat.core.types import ChatDelta, Usage
from tests.support.fake_http_client import EVENTS, JSON, LINES, TEXT, ask, events, lines, make, read, text_of

OPENAI = {
    "id": "x",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}

SHAPES: dict[str, Any] = {
    "reply": {"reply": "Hi", "id": 7},
    "response": {"response": "Hi"},
    "message": {"message": "Hi"},
    "message with content": {"message": {"role": "assistant", "content": "Hi"}},
    "answer": {"answer": "Hi", "message": "success", "code": 0},
    "text": {"text": "Hi"},
    "content": {"role": "assistant", "content": "Hi", "finish_reason": "stop"},
    "output": {"output": "Hi"},
    "result": {"result": "Hi"},
    "generated_text": {"generated_text": "Hi"},
    "a list of generated_text": [{"generated_text": "Hi"}],
    "messages in a list, as Rasa": [{"recipient_id": "1", "text": "H"}, {"image": "x"}, {"text": "i"}],
    "a string": "Hi",
    "nested in data": {"code": 0, "message": "success", "data": {"answer": "Hi"}},
    "nested deeper": {"status": "ok", "data": {"result": {"output": [{"text": "Hi"}]}}},
    "data": {"data": "Hi"},
    "text completion": {"choices": [{"text": "Hi", "index": 0, "finish_reason": "stop"}]},
    "choices of another kind": {"choices": [{"content": "Hi"}, {"content": "Hello"}]},
    "choices as strings": {"choices": ["Hi"]},
    "empty error": {"reply": "Hi", "error": None},
    "Anthropic": {
        "type": "message", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hi"}],
    },
    "Gemini": {"candidates": [{"content": {"parts": [{"text": "H"}, {"text": "i"}], "role": "model"}}]},
    "Cohere": {"id": "x", "message": {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]}},
    "Bedrock": {"output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}}, "stopReason": "end_turn"},
    "Titan": {"inputTextTokenCount": 1, "results": [{"outputText": "Hi", "completionReason": "FINISH"}]},
    "Ollama": {"model": "m", "message": {"role": "assistant", "content": "Hi"}, "done": True},
    "Ollama's generate": {"response": "Hi", "done": True, "context": [1, 2]},
    "Replicate": {"status": "succeeded", "error": None, "output": ["H", "i"]},
    "Responses": {
        "object": "response", "status": "completed", "error": None,
        "output": [{"type": "reasoning", "summary": []},
                   {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}],
    },
    "LangGraph": {"messages": [{"type": "human", "content": "Hello"}, {"type": "ai", "content": "Hi"}]},
    "Dify": {"event": "message", "answer": "Hi", "metadata": {"usage": {"prompt_tokens": 1}}},
    "llama.cpp": {"content": "Hi", "stop": True, "tokens_predicted": 2},
}  # fmt: skip


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("body", SHAPES.values(), ids=SHAPES)
def test_the_text_is_found_in_every_known_shape(body: Any, is_streamed: bool) -> None:
    deltas = read(make(body), is_streamed=is_streamed)
    assert text_of(deltas).replace("\n", "") == "Hi"
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["stop"]
    assert deltas[-1].finish_reason


@pytest.mark.parametrize("body", [shape for shape in SHAPES.values() if not isinstance(shape, str)])
def test_the_text_is_found_with_any_content_type_and_formatting(body: Any) -> None:
    for content in (json.dumps(body).encode(), json.dumps(body, indent=2).replace("\n", "\r\n").encode() + b"\n\n"):
        for content_type in (TEXT, "text/html", EVENTS, "application/octet-stream", None):
            assert text_of(read(make(content, content_type))).replace("\n", "") == "Hi"


def test_openais_shape_is_read_with_finish_reason_and_usage() -> None:
    assert read(make(OPENAI)) == [ChatDelta("Hi", usage=Usage(3, 1)), ChatDelta(finish_reason="length")]


@pytest.mark.parametrize(
    ("body", "finish_reason", "usage"),
    [
        ({"text": "Hi", "stop_reason": "max_tokens",
          "usage": {"input_tokens": 3, "output_tokens": 4}}, "length", (3, 4)),
        ({"response": "Hi", "done": True, "done_reason": "length",
          "prompt_eval_count": 3, "eval_count": 4}, "length", (3, 4)),
        ({"content": "Hi", "stop": True, "stop_type": "limit",
          "tokens_evaluated": 3, "tokens_predicted": 4}, "length", (3, 4)),
        ({"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "SAFETY"}],
          "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4}}, "content_filter", (3, 4)),
        ({"output": {"message": {"content": [{"text": "Hi"}]}}, "stopReason": "end_turn",
          "usage": {"inputTokens": 3, "outputTokens": 4}}, "stop", (3, 4)),
        ({"answer": "Hi", "metadata": {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}}, "stop", (3, 4)),
        ({"text": "Hi", "finish_reason": "COMPLETE",
          "meta": {"tokens": {"input_tokens": 3, "output_tokens": 4}}}, "stop", (3, 4)),
        ([{"generated_text": "Hi", "details": {"finish_reason": "length", "generated_tokens": 4}}], "length", None),
        ({"reply": "Hi", "usage": {"prompt_tokens": "3"}}, "stop", None),
    ],
)  # fmt: skip
def test_finish_reason_and_usage_are_found(body: Any, finish_reason: str, usage: tuple[int, int] | None) -> None:
    deltas = read(make(body))
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == [finish_reason]
    assert [delta.usage for delta in deltas if delta.usage] == ([Usage(*usage)] if usage else [])


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("data.answer", {"data": {"answer": "Hi"}, "reply": "no"}, "Hi"),
        ("choices.0.text", {"choices": [{"text": "Hi"}]}, "Hi"),
        ("turns.-1.said", {"turns": [{"said": "no"}, {"said": "Hi"}]}, "Hi"),
        ("0.x", [{"x": "Hi"}], "Hi"),
        ("x", {"x": 42}, "42"),
        ("x", {"x": ["H", "i"]}, "Hi"),
        ("x", {"x": {"content": [{"type": "text", "text": "Hi"}]}}, "Hi"),
        ("x", {"x": ""}, ""),
    ],
)
def test_the_text_is_read_at_reply_path(path: str, body: Any, text: str) -> None:
    assert text_of(read(make(body), reply_path=path)) == text


@pytest.mark.parametrize("path", [None, "data.answer", "choices.7.text", "choices.x"])
def test_the_error_for_a_missing_text_names_the_keys_but_no_value(path: str | None) -> None:
    reply = make({"choices": [], "state": {"said": "secret words"}, "n": 4} if path else {"state": 1, "n": [4]})
    with pytest.raises(UpstreamInvalidResponseError) as raised:
        ask(reply, reply_path=path)
    assert "'state', 'n'" in raised.value.message
    assert "reply_path" in raised.value.message
    assert "secret" not in raised.value.message
    assert path is None or path in raised.value.message
    assert reply.ending == "closed"


def test_an_empty_text_is_an_answer() -> None:
    assert read(make({"reply": ""})) == [ChatDelta(finish_reason="stop")]


def test_a_complete_answer_is_streamed_token_by_token() -> None:
    text = "The quick brown fox jumps over the lazy dog."
    deltas = read(
        make({"reply": text, "thinking": "hm", "usage": {"prompt_tokens": 3, "completion_tokens": 9}}), is_streamed=True
    )
    assert text_of(deltas) == text
    assert len(deltas) > 9
    assert deltas[0] == ChatDelta(reasoning="hm")
    assert [delta.usage for delta in deltas if delta.usage] == [Usage(3, 9)]
    assert deltas[-1].finish_reason == "stop"


def test_plain_text_with_a_content_length_is_streamed_token_by_token() -> None:
    assert len(read(make(b"one two three four", TEXT), is_streamed=True)) == 5
    assert read(make(b"one two three four", TEXT)) == [ChatDelta("one two three four"), ChatDelta(finish_reason="stop")]


@pytest.mark.parametrize(
    ("content", "content_type", "text"),
    [
        (b"Hello\nthere", TEXT, "Hello\nthere"),
        (b"Hello", None, "Hello"),
        (b"Hello", "text/html", "Hello"),
        (b"<p>Hello</p>", "text/html", "<p>Hello</p>"),
        (b"<!DOCTYPE html><p>a page, as asked", TEXT, "<!DOCTYPE html><p>a page, as asked"),
        (b"Hello", JSON, "Hello"),
        (b"Hello", EVENTS, "Hello"),
        (b'"Hello," she said.', TEXT, '"Hello," she said.'),
        (b'"Hello"', TEXT, '"Hello"'),
        (b"[1] A footnote", TEXT, "[1] A footnote"),
        (b"{not JSON}", "text/html", "{not JSON}"),
        (b'{"name": "Ann"}', TEXT, '{"name": "Ann"}'),
        (b'{"name": "Ann"}\n{"name": "Bob"}', TEXT, '{"name": "Ann"}\n{"name": "Bob"}'),
        (b"id: 5\nname: x", TEXT, "id: 5\nname: x"),
        (b"<html></html>", TEXT, "<html></html>"),
        (b"42", JSON, "42"),
        ("né".encode("latin-1"), "text/plain; charset=ISO-8859-1", "né"),
        ("né".encode(), 'text/plain; charset="utf8"', "né"),
        ("né".encode(), "text/plain; charset=nonsense", "né"),
        (b"\xef\xbb\xbfHello", TEXT, "Hello"),
        (b'\xef\xbb\xbf{"reply": "Hello"}', JSON, "Hello"),
    ],
)
def test_plain_text_is_the_answer(content: bytes, content_type: str | None, text: str) -> None:
    assert text_of(read(make(content, content_type))) == text


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"", JSON),
        (b"", TEXT),
        (b" \n\n", None),
        (b"null", JSON),
        (b"{}", JSON),
        (b"[]x", JSON),
        (b'{"reply": "Hi"', JSON),
        (b'{"reply": "Hi"}\nnot JSON\n', JSON),
        (b"[" * 100_000, JSON),
        (b"<!DOCTYPE html><title>Sign in</title>", "text/html; charset=utf-8"),
        (b"\n<html>", "text/html"),
        (b"<!doctype html>", JSON),
        (b"\xef\xbb\xbf<html>", EVENTS),
        (b"<html>", None),
        (b"caf\xe9", TEXT),
        (b'{"reply": "caf\xe9"}', JSON),
        (b"data: \n\n", EVENTS),
        (b'data: {"n": 1}\n\n', EVENTS),
        (b'{"n": 1}\n', LINES),
        (b"text\n", LINES),
    ],
)
def test_a_reply_without_an_answer_is_invalid(content: bytes, content_type: str | None) -> None:
    reply = make(content, content_type)
    with pytest.raises(UpstreamInvalidResponseError):
        read(reply)
    assert reply.ending == "closed"


STREAMS: dict[str, tuple[str, bytes]] = {
    "data on the next line": (
        EVENTS, b'data:\ndata: {"content": "Hel"}\n\ndata:\ndata: {"content": "lo"}\n\ndata: [DONE]\n\n'
    ),
    "OpenAI": (EVENTS, events(*({"choices": [{"delta": delta, "finish_reason": reason}]} for delta, reason in (
        ({"role": "assistant", "content": ""}, None), ({"content": "Hel"}, None), ({"content": "lo"}, None),
        ({}, "stop"),
    )), "[DONE]")),
    "top-level content": (EVENTS, events(
        {"role": "assistant", "content": "Hel", "finish_reason": None},
        {"role": "assistant", "content": "lo", "finish_reason": None},
        {"role": "assistant", "content": "", "finish_reason": "stop"},
    )),
    "text": (EVENTS, events("Hel", "lo")),
    "text and a mark": (EVENTS, events("Hel", "lo", "[DONE]")),
    "texts in JSON": (EVENTS, events('"Hel"', '"lo"', "[DONE]")),
    "Ollama": (LINES, lines(
        {"message": {"role": "assistant", "content": "Hel"}, "done": False},
        {"message": {"role": "assistant", "content": "lo"}, "done": False},
        {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop", "eval_count": 2},
    )),
    "Ollama's generate": (LINES, lines({"response": "Hel", "done": False}, {"response": "lo", "done": True})),
    "Anthropic": (EVENTS, events(
        {"type": "message_start", "message": {"content": [], "stop_reason": None, "usage": {"input_tokens": 3}}},
        {"type": "content_block_start", "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "lo"}},
        {"type": "content_block_stop"},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    )),
    "Responses": (EVENTS, events(
        {"type": "response.created", "response": {"status": "in_progress", "output": [], "error": None}},
        {"type": "response.output_text.delta", "delta": "Hel"},
        {"type": "response.output_text.delta", "delta": "lo"},
        {"type": "response.completed", "response": {"output": [
            {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}]}},
    )),
    "text-generation-inference": (EVENTS, events(
        {"token": {"text": "Hel", "special": False}, "generated_text": None, "details": None},
        {"token": {"text": "lo", "special": False}, "generated_text": None, "details": None},
        {"token": {"text": "</s>", "special": True}, "generated_text": "Hello",
         "details": {"finish_reason": "eos_token"}},
    )),
    "Cohere": (LINES, lines(
        {"event_type": "stream-start", "is_finished": False},
        {"event_type": "text-generation", "text": "Hel", "is_finished": False},
        {"event_type": "text-generation", "text": "lo", "is_finished": False},
        {"event_type": "stream-end", "response": {"text": "Hello"}, "finish_reason": "COMPLETE", "is_finished": True},
    )),
    "AI SDK": (EVENTS, events(
        {"type": "start"}, {"type": "text-start", "id": "0"}, {"type": "text-delta", "id": "0", "delta": "Hel"},
        {"type": "text-delta", "id": "0", "delta": "lo"}, {"type": "text-end", "id": "0"}, {"type": "finish"}, "[DONE]",
    )),
    "Dify": (EVENTS, events(
        {"event": "message", "answer": "Hel"}, {"event": "ping"}, {"event": "message", "answer": "lo"},
        {"event": "message_end", "metadata": {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}},
    )),
    "JSON lines, typed as JSON": (JSON, lines({"text": "Hel"}, {"text": "lo"})),
    "JSON lines, typed as text": (TEXT, lines({"text": "Hel"}, {"text": "lo"})),
    "events, typed as text": (TEXT, events({"text": "Hel"}, {"text": "lo"})),
    "events, typed as JSON": (JSON, events("Hel", "lo")),
    "events, typed as lines": (LINES, events("Hel", "lo")),
    "lines, typed as events": (EVENTS, lines({"text": "Hel"}, {"text": "lo"})),
    "text, typed as events": (EVENTS, b"Hello"),
    "a record separator": ("application/json-seq", b'\x1e{"text": "Hel"}\n\x1e{"text": "lo"}\n'),
}  # fmt: skip


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize(("content_type", "content"), STREAMS.values(), ids=STREAMS)
def test_streams_of_every_known_kind_are_read(content_type: str, content: bytes, is_streamed: bool) -> None:
    deltas = read(make(content, content_type, is_chunked=True), is_streamed=is_streamed)
    assert text_of(deltas) == "Hello"
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["stop"]
    byte_by_byte = [content[start : start + 1] for start in range(len(content))]
    again = read(make(byte_by_byte, content_type, is_chunked=True), is_streamed=is_streamed)
    assert again == deltas or (content_type, content) == STREAMS["text, typed as events"]


def test_a_delta_is_yielded_before_the_next_block_is_read() -> None:
    for content_type, blocks in {
        EVENTS: [events({"text": "a", "done": False}), events({"text": "b", "done": True})],
        LINES: [lines({"text": "a", "done": False}), lines({"text": "b", "done": True})],
        TEXT: [b"This is a text", b" in two blocks"],
    }.items():
        reply = make([blocks[0], HEARTBEAT, blocks[1]], content_type, is_chunked=True)
        deltas = ask(reply, is_streamed=True)
        assert isinstance(next(deltas), ChatDelta)
        assert next(deltas) is HEARTBEAT
        assert isinstance(next(deltas), ChatDelta)


def test_usage_reported_in_two_events_is_merged() -> None:
    deltas = read(make(STREAMS["Anthropic"][1], EVENTS, is_chunked=True))
    assert [delta.usage for delta in deltas if delta.usage] == [Usage(3, 2)]


def test_a_short_repetition_is_part_of_the_answer() -> None:
    chunks = ["ha", "ha", "haha", "ha"]
    assert text_of(read(make(events(*({"text": chunk} for chunk in chunks)), EVENTS))) == "hahahahaha"


def test_reasoning_is_separate_from_the_text() -> None:
    content = lines(
        {"message": {"content": "", "thinking": "hm"}, "done": False}, {"message": {"content": "Hi"}, "done": True}
    )
    assert read(make(content, LINES)) == [
        ChatDelta(reasoning="hm"),
        ChatDelta("Hi"),
        ChatDelta(finish_reason="stop"),
    ]


def test_text_events_may_look_like_json() -> None:
    assert text_of(read(make(events("Sure: ", '{"a": ', "[1, 2]", "}", '"'), EVENTS))) == 'Sure: {"a": [1, 2]}"'


def test_only_the_first_choice_is_read() -> None:
    chunks = [{"choices": [{"index": index, "delta": {"content": "ab"[index]}}]} for index in (0, 1)]
    assert read(make(events(*chunks, "[DONE]"), EVENTS)) == [ChatDelta("a"), ChatDelta(finish_reason="stop")]


def test_reply_path_applies_to_each_event() -> None:
    content = events({"meta": 1}, {"x": {"y": "Hel"}, "text": "no"}, {"x": {"y": "lo"}}, {"x": {}})
    assert text_of(read(make(content, EVENTS), reply_path="x.y")) == "Hello"


CUTS = {
    "OpenAI": (EVENTS, events({"choices": [{"delta": {"content": "a"}, "finish_reason": None}]})),
    "top-level content": (EVENTS, events({"role": "assistant", "content": "a", "finish_reason": None})),
    "Ollama": (LINES, lines({"message": {"content": "a"}, "done": False})),
    "Anthropic": (EVENTS, events({"message": {"stop_reason": None}}, {"delta": {"text": "a"}})),
}  # fmt: skip


@pytest.mark.parametrize(("content_type", "content"), CUTS.values(), ids=CUTS)
def test_a_stream_without_its_usual_end_is_truncated(content_type: str, content: bytes) -> None:
    reply = make(content, content_type, is_chunked=True)
    deltas = ask(reply, is_streamed=True)
    assert next(deltas) == ChatDelta("a")
    with pytest.raises(UpstreamTruncatedError):
        next(deltas)
    assert reply.ending == "closed"


@pytest.mark.parametrize("content_type", [EVENTS, LINES, TEXT, JSON])
def test_a_broken_connection_is_an_error(content_type: str) -> None:
    reply = make([b'data: {"text": "a"}\n\n', UpstreamTruncatedError("cut")], content_type, is_chunked=True)
    deltas = ask(reply, is_streamed=True)
    assert next(deltas) == ChatDelta("a")
    with pytest.raises(UpstreamTruncatedError, match="cut"):
        next(deltas)
    assert reply.ending == "closed"


@pytest.mark.parametrize("data", [b'{"message": "It fell over."}', b"It fell over.", b'{"error": "It fell over."}'])
def test_an_event_named_error_is_an_error(data: bytes) -> None:
    body = b'event: token\ndata: {"text": "Hel"}\n\nevent: error\ndata: ' + data + b"\n\n"
    with pytest.raises(UpstreamError, match=r"It fell over\."):
        read(make([body], EVENTS, is_chunked=True))


def test_an_incomplete_event_is_invalid() -> None:
    deltas = ask(make(b'data: {"text": "a"}\n\ndata: {"te', EVENTS, is_chunked=True), is_streamed=True)
    next(deltas)
    with pytest.raises(UpstreamInvalidResponseError, match="not valid JSON"):
        next(deltas)


def test_the_reply_is_closed_on_every_path() -> None:
    content = events("a", "b", "[DONE]")
    untouched, started, finished = (make(content, EVENTS, is_chunked=True) for _ in range(3))
    close_stream(ask(untouched))
    stream = ask(started)
    next(stream)
    close_stream(stream)
    read(finished)
    assert [untouched.ending, started.ending, finished.ending] == ["closed", "closed", "released"]


KEYS = [
    *known_shapes.TEXT_KEYS, *known_shapes.NESTING_KEYS, *known_shapes.WEAK_TEXT_KEYS, *known_shapes.FINISH_KEYS,
    *known_shapes.FINISH_FLAGS, *known_shapes.USAGE_KEYS, *known_shapes.PROMPT_COUNTS, *known_shapes.CODE_KEYS,
    *known_shapes.EVENT_KEYS, *known_shapes.REASONING_KEYS, "choices", "error", "index", "logprobs", "tool_calls",
    "function_call", "function", "id", "special", "prompt_tokens_details",
]  # fmt: skip


def make_random_value(random_: random.Random, levels: int) -> Any:
    kind = random_.randint(0, 9) if levels else 0
    if kind < 4:
        return random_.choice([None, True, False, 0, -1, 2.5, 429, "", "x", "stop", "error", "2"])
    if kind < 6:
        return [make_random_value(random_, levels - 1) for _ in range(random_.randint(0, 3))]
    return {random_.choice(KEYS): make_random_value(random_, levels - 1) for _ in range(random_.randint(0, 4))}


@pytest.mark.parametrize("seed", range(30))
def test_random_replies_raise_upstream_errors_only(seed: int) -> None:
    random_ = random.Random(seed)
    for _ in range(50):
        values = [make_random_value(random_, 5) for _ in range(random_.randint(1, 4))]
        content = random_.choice([events, lines])(*values)
        if random_.random() < 0.2:
            content = bytes(random_.randrange(256) if random_.random() < 0.02 else byte for byte in content)
        reply = make(content, random_.choice([JSON, TEXT, EVENTS, LINES, None]), is_chunked=random_.random() < 0.5)
        path = random_.choice([None, None, "message.content", "choices.0"])
        with suppress(UpstreamError):
            read(reply, is_streamed=random_.random() < 0.5, reply_path=path)
        assert reply.ending


def test_an_error_field_is_an_error() -> None:
    with pytest.raises(UpstreamError, match="boom"):
        read(make([b"error: boom\n\ndata: [DONE]\n\n"], EVENTS, is_chunked=True))


BROKEN = {
    "JSON in the next line": b'data:\n{"text": "not"}\n\n',
    "a text of two lines": b"data: do not\nsend it\n\n",
    "JSON as the first event": b'data: {"text": "Transf\n\n',
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_event_that_may_have_carried_text_is_an_error(broken: bytes) -> None:
    for content in (broken + events({"text": "Hi"}), events({"text": "Hi"}) + broken):
        with pytest.raises(UpstreamInvalidResponseError):
            read(make([content], EVENTS, is_chunked=True))


@pytest.mark.parametrize("key", ["text", "content"])
def test_a_character_that_is_split_over_two_events_arrives_whole(key: str) -> None:
    content = events({key: "a\ud83d"}, {key: "\ude00b"})
    assert text_of(read(make([content], EVENTS, is_chunked=True))) == "a\U0001f600b"
    content = events(*({"choices": [{"delta": {"content": half}}]} for half in ("\ud83d", "\ude00")))
    assert text_of(read(make([content + b"data: [DONE]\n\n"], EVENTS, is_chunked=True))) == "\U0001f600"


def test_text_after_an_early_finish_reason_precedes_it() -> None:
    content = lines({"text": "", "done": True}, {"text": "Hi", "done": False})
    assert read(make([content], LINES, is_chunked=True)) == [ChatDelta("Hi"), ChatDelta(finish_reason="stop")]


def test_a_stream_of_openais_shape_without_content_is_no_answer() -> None:
    content = events({"choices": [{"delta": {"role": "assistant"}}]}) + b"data: [DONE]\n\n"
    with pytest.raises(UpstreamInvalidResponseError):
        read(make([content], EVENTS, is_chunked=True))
