"""Chat completions and their chunks, as OpenAI and OpenAI-compatible servers send them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.backends.parsing.openai_chat import ChatParser, read_chat_completion, read_chat_stream, read_usage
from openai_compat.core.errors import UpstreamInvalidResponseError, UpstreamStatusError, UpstreamTruncatedError
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import MAX_TOKENS, ChatDelta, TokenLogprob, ToolCallDelta, Usage
from tests.support.scripted_response import ScriptedResponse

DONE = "[DONE]"


def chunk(delta: Any = None, finish_reason: str | None = None, index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta or {}, "finish_reason": finish_reason}], **fields}


def completion(message: Any, finish_reason: str | None = "stop", **fields: Any) -> bytes:
    return json.dumps(
        {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}], **fields}
    ).encode()


class Response(UpstreamResponse):
    """A response of status 200 with a fixed list of events and heartbeats."""

    def __init__(self, *events: Any) -> None:
        self.status, self.headers = 200, {}
        self.events = events
        self.ending = ""

    def blocks(self) -> Iterator[bytes | Heartbeat]:
        for event in self.events:
            if isinstance(event, Heartbeat):
                yield event
            else:
                yield b"data: %b\n\n" % (event if isinstance(event, str) else json.dumps(event)).encode()

    def read(self) -> bytes:
        raise NotImplementedError

    def close(self) -> None:
        self.ending = self.ending or "closed"

    def release(self) -> None:
        self.ending = "released"


def read(*events: Any) -> list[ChatDelta | Heartbeat]:
    return list(read_chat_stream(Response(*events)))


def test_a_stream_of_openai() -> None:
    usage = {
        "prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 1},
    }  # fmt: skip
    assert read(
        chunk({"role": "assistant", "content": ""}, usage=None),
        chunk({"content": "Hel"}, usage=None),
        HEARTBEAT,
        chunk({"content": "lo"}),
        chunk({}, "stop"),
        {"choices": [], "usage": usage},
        DONE,
    ) == [
        ChatDelta("Hel"),
        HEARTBEAT,
        ChatDelta("lo"),
        ChatDelta(usage=Usage(5, 2, cached_tokens=3, reasoning_tokens=1)),
        ChatDelta(finish_reason="stop"),
    ]


def test_each_of_several_choices_ends_with_its_own_finish_reason() -> None:
    deltas = read(
        chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk({}, "length", 1), chunk({}, "stop"), DONE
    )
    assert deltas[-2:] == [ChatDelta(finish_reason="stop"), ChatDelta(index=1, finish_reason="length")]


def test_the_first_chunk_of_azure_and_empty_errors_yield_no_delta() -> None:
    first: dict[str, Any] = {"choices": [], "prompt_filter_results": [{}], "error": {}}
    assert read(first, chunk({"content": "a"}, error=None), chunk({}, "stop"), DONE)[0] == ChatDelta("a")


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        ({"reasoning_content": "hm"}, ChatDelta(reasoning="hm")),
        ({"reasoning": "hm", "content": ""}, ChatDelta(reasoning="hm")),
        ({"content": None, "refusal": "no"}, ChatDelta(refusal="no")),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, ChatDelta("ab")),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}, ChatDelta(reasoning="hm")),
        (
            {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}, "a"]},
            ChatDelta("a", reasoning="hm"),
        ),
    ],
)
def test_text_and_reasoning_are_found_in_every_known_form(delta: Any, expected: ChatDelta) -> None:
    assert list(ChatParser().read(chunk(delta))) == [expected]


def test_log_probabilities() -> None:
    token = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -1, "bytes": []}]}
    choice = {"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [token], "refusal": None}}
    assert list(ChatParser().read({"choices": [choice]})) == [
        ChatDelta("a", logprobs=(TokenLogprob("a", -0.5, (("b", -1),)),))
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [("stop", "stop"), ("function_call", "function_call"), ("MAX_TOKENS", "length"), ("end_turn", "stop"),
     ("model_length", "length"), ("SAFETY", "content_filter"), ("tool_use", "tool_calls"), ("unknown", "stop")],
)  # fmt: skip
def test_finish_reasons_of_other_providers(value: str, reason: str) -> None:
    parser = ChatParser()
    assert list(parser.read(chunk({}, value))) == []
    assert [delta.finish_reason for delta in parser.read_end()] == [reason]


@pytest.mark.parametrize("value", ["error", "abort", "MALFORMED_FUNCTION_CALL"])
def test_a_finish_reason_that_is_a_failure_is_an_error(value: str) -> None:
    with pytest.raises(UpstreamTruncatedError, match=value.lower()):
        read(chunk({"content": "a"}), chunk({}, value), DONE)
    with pytest.raises(UpstreamTruncatedError, match=value.lower()):
        read_chat_completion(completion({"content": "a"}, value))


def call(index: int | None, id_: str | None = None, name: str | None = None, arguments: Any = None) -> dict[str, Any]:
    delta = {"index": index, "id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
    return {key: value for key, value in delta.items() if value is not None}


A, B = ToolCallDelta(0, "", "a", "f"), ToolCallDelta(1, "", "b", "g")
AX, BX = ToolCallDelta(0, "x"), ToolCallDelta(1, "x")

TOOL_CALLS = {
    "as OpenAI sends them": (
        [call(0, "a", "f", ""), call(0, arguments="x"), call(1, "b", "g", ""), call(1, arguments="x")],
        [A, AX, B, BX],
    ),
    "interleaved": ([call(0, "a", "f"), call(1, "b", "g"), call(0, None, None, "x")], [A, B, AX]),
    "without an index": (
        [call(None, "a", "f"), call(None, arguments="x"), call(None, "b", "g"), call(None, arguments="x")],
        [A, AX, B, BX],
    ),
    "without an index, by id": ([call(None, "a", "f"), call(None, "b", "g"), call(None, "a", None, "x")], [A, B, AX]),
    "without index and id": (
        [call(None, None, "f"), call(None, arguments="x"), call(None, None, "g")],
        [ToolCallDelta(0, "", None, "f"), AX, ToolCallDelta(1, "", None, "g")],
    ),
    "all with the index 0": (
        [call(0, "a", "f"), call(0, arguments="x"), call(0, "b", "g"), call(0, arguments="x")],
        [A, AX, B, BX],
    ),
    "numbered from 1": ([call(1, "a", "f"), call(1, arguments="x"), call(2, "b", "g")], [A, AX, B]),
    "id and name in every delta": ([call(0, "a", "f"), call(0, "a", "f", "x")], [A, AX]),
    "a new id in every delta": ([call(0, "a", "f"), call(0, "z", None, "x")], [A, AX]),
    "the name after the id": (
        [call(0, "a"), call(0, None, "f")],
        [A],
    ),
    "the name after the id and the first arguments": (
        [call(0, "a", arguments="x"), call(0, arguments="y"), call(0, None, "f", "z"), call(0, arguments="x")],
        [ToolCallDelta(0, "xyz", "a", "f"), AX],
    ),
    "the id after the name": (
        [call(0, None, "f"), call(0, "a", None, "x")],
        [ToolCallDelta(0, "", None, "f"), AX],
    ),
    "an index in the first delta only": ([call(0, "a", "f"), call(None, arguments="x")], [A, AX]),
    "an index in all but the first delta": ([call(None, "a", "f"), call(0, arguments="x")], [A, AX]),
    "a new index in every delta": ([call(0, "a", "f"), call(1, "a", None, "x")], [A, AX]),
    "one id for two calls": (
        [call(0, "a", "f"), call(1, "a", "g"), call(1, None, None, "x")],
        [A, ToolCallDelta(1, "", None, "g"), BX],
    ),
    "two functions with the index 0 and no ids": (
        [call(0, None, "f", "{}"), call(0, None, "g", "{}")],
        [ToolCallDelta(0, "{}", None, "f"), ToolCallDelta(1, "{}", None, "g")],
    ),
    "two complete calls of one function with the index 0 and empty ids": (
        [call(0, "", "f", '{"a": 1}'), call(0, "", "f", '{"a": 2}')],
        [ToolCallDelta(0, '{"a": 1}', None, "f"), ToolCallDelta(1, '{"a": 2}', None, "f")],
    ),
    "arguments as an object": ([call(0, "a", "f", {"x": 1})], [ToolCallDelta(0, '{"x": 1}', "a", "f")]),
    "halves of a character": (
        [call(0, "a", "f", "\ud83d"), call(0, arguments="\ude00x")],
        [A, ToolCallDelta(0, "\U0001f600x")],
    ),
    "custom tools": (
        [
            {"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": ""}},
            {"index": 0, "custom": {"input": "x"}},
            call(1, "b", "g", ""),
        ],
        [ToolCallDelta(0, "", "a", "f", "custom"), ToolCallDelta(0, "x", type="custom"), B],
    ),
    "not objects": ([3, {"function": "f"}], []),
}


@pytest.mark.parametrize(("calls", "expected"), TOOL_CALLS.values(), ids=TOOL_CALLS)
def test_tool_calls_are_numbered_and_named_once(calls: list[Any], expected: list[ToolCallDelta]) -> None:
    """Repair missing and wrong indexes, which break accumulators (ollama#15457, litellm#33678, openai-python#2806)."""
    parser = ChatParser()
    deltas = [delta for item in calls for delta in parser.read(chunk({"tool_calls": [item]}))]
    assert [tool_call for delta in deltas for tool_call in delta.tool_calls] == expected
    together = ChatParser().read(chunk({"tool_calls": calls}))
    assert [tool_call for delta in together for tool_call in delta.tool_calls] == expected


def test_a_call_whose_name_never_comes_is_sent_at_the_end() -> None:
    deltas = read(chunk({"tool_calls": [call(0, "a", None, "x")]}), chunk({}, "tool_calls"), DONE)
    assert deltas == [ChatDelta(finish_reason="tool_calls", tool_calls=(ToolCallDelta(0, "x", "a"),))]


def test_stop_after_tool_calls_becomes_tool_calls() -> None:
    """`stop` would end an agent's loop before the tools have run (opencode#14972)."""
    deltas = read(chunk({"tool_calls": [call(0, "a", "f")]}), chunk({}, "stop"), DONE)
    assert deltas[-1] == ChatDelta(finish_reason="tool_calls")


def test_the_deprecated_function_call() -> None:
    """It is read as a tool call, so its finish reason must be the one of tool calls."""
    assert read(chunk({"function_call": {"name": "f", "arguments": "{}"}}, "function_call"), DONE) == [
        ChatDelta(tool_calls=(ToolCallDelta(0, "{}", None, "f"),)),
        ChatDelta(finish_reason="tool_calls"),
    ]


def test_done_without_a_finish_reason_adds_one() -> None:
    assert read(chunk({"content": "a"}), DONE)[-1] == ChatDelta(finish_reason="stop")
    assert read(chunk({"tool_calls": [call(0, "a", "f")]}), DONE)[-1] == ChatDelta(finish_reason="tool_calls")


@pytest.mark.parametrize(
    "events", [[], [chunk({"content": "a"})], [chunk({}, "stop"), chunk({"content": "b"}, index=1)]]
)
def test_a_stream_that_ends_early_is_truncated(events: list[Any]) -> None:
    with pytest.raises(UpstreamTruncatedError):
        read(*events)


def test_a_finish_reason_without_done_ends_the_stream() -> None:
    assert read(chunk({"content": "a"}, "stop")) == [ChatDelta("a"), ChatDelta(finish_reason="stop")]


def test_nothing_follows_the_finish_reason() -> None:
    """Some servers send a finish reason with the first chunk, or with every one (open-webui#23921)."""
    early = read(chunk({"content": ""}, "stop"), chunk({"content": "a"}), chunk({}, "length"), DONE)
    assert early == [ChatDelta("a"), ChatDelta(finish_reason="length")]
    calls = read(chunk({"content": ""}, "stop"), chunk({"tool_calls": [call(0, "a", "f")]}), DONE)
    assert calls == [ChatDelta(tool_calls=(A,)), ChatDelta(finish_reason="tool_calls")]


def test_an_empty_finish_reason_is_none() -> None:
    assert read(chunk({"content": "a"}, ""), chunk({}, ""), DONE) == [ChatDelta("a"), ChatDelta(finish_reason="stop")]


def test_annotations_and_audio_are_kept() -> None:
    note = {"type": "url_citation", "url_citation": {"url": "https://x"}}
    audio = {"id": "audio_1", "data": "AAAA", "transcript": "Hi"}
    assert read(chunk({"annotations": [note, 3], "audio": audio}), chunk({}, "stop"), DONE) == [
        ChatDelta(annotations=(note,), audio=audio),
        ChatDelta(finish_reason="stop"),
    ]


@pytest.mark.parametrize(
    ("key", "field"), [("content", "content"), ("reasoning_content", "reasoning"), ("refusal", "refusal")]
)
def test_a_character_that_is_split_over_two_events_arrives_whole(key: str, field: str) -> None:
    deltas = read(*(chunk({key: text}) for text in ("a\ud83d", "\ude00b", "\ud83d", "c")), chunk({}, "stop"), DONE)
    texts = [getattr(delta, field) for delta in deltas]
    assert texts == ["a", "\U0001f600b", "\ufffdc", None]


def test_nan_in_log_probabilities_is_the_lowest_one() -> None:
    tokens = '{"content": [{"token": "a", "logprob": -Infinity}]}'
    event = f'{{"choices": [{{"delta": {{"content": "a"}}, "logprobs": {tokens}}}]}}'
    assert read(event, chunk({}, "stop"), DONE)[0] == ChatDelta("a", logprobs=(TokenLogprob("a", -9999.0),))


@pytest.mark.parametrize("event", ["{", "[]", "null", "text", '{"choices": [3]}', "[" * 100_000])
def test_an_event_that_is_no_chunk_is_an_error(event: str) -> None:
    with pytest.raises(UpstreamInvalidResponseError):
        read(event)


@pytest.mark.parametrize(
    "event",
    [{"choices": [{"delta": None, "index": None, "logprobs": 3}]}, {"choices": 3, "usage": [1]}, {"usage": {}},
     chunk({"tool_calls": 3, "content": 4, "refusal": []}), {"choices": [{"logprobs": {"content": [{"token": 1}]}}]}],
)  # fmt: skip
def test_values_of_wrong_types_in_a_chunk_are_ignored(event: Any) -> None:
    assert list(ChatParser().read(event)) == []


@pytest.mark.parametrize("choice", [{"delta": "x"}, {"message": ["x"]}, {"index": [0], "delta": {}}, {"index": "y"}])
def test_a_choice_that_cannot_be_read_is_an_error(choice: Any) -> None:
    with pytest.raises(UpstreamInvalidResponseError):
        list(ChatParser().read({"choices": [choice]}))


@pytest.mark.parametrize("body", ['{"error": {"message": "too many", "code": 429}}', '{\n "detail": "too many"\n}'])
def test_an_error_that_is_no_event_is_raised(body: str) -> None:
    with pytest.raises(UpstreamStatusError, match="too many"):
        list(read_chat_stream(ScriptedResponse(body.encode())))


def test_an_error_object_in_the_stream_is_raised() -> None:
    deltas = read_chat_stream(
        Response(chunk({"content": "a"}), {"error": {"message": "too many", "type": "t", "code": 429}}, DONE)
    )
    assert next(deltas) == ChatDelta("a")
    with pytest.raises(UpstreamStatusError, match="too many") as raised:
        next(deltas)
    assert (raised.value.upstream_status, raised.value.type, raised.value.code) == (429, "t", "429")


def test_the_response_is_closed_on_every_path() -> None:
    done, truncated, abandoned, unread = (
        Response(chunk({"content": "a"}), *rest) for rest in ([DONE], [], [DONE], [DONE])
    )
    list(read_chat_stream(done))
    with pytest.raises(UpstreamTruncatedError):
        list(read_chat_stream(truncated))
    started = read_chat_stream(abandoned)
    next(started)
    started.close()
    read_chat_stream(unread).close()
    endings = [response.ending for response in (done, truncated, abandoned, unread)]
    assert endings == ["released", "closed", "closed", "closed"]


def test_a_completion() -> None:
    body = completion(
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call(None, "a", "f", "{}")]},
        "tool_calls",
        usage={"prompt_tokens": 1, "completion_tokens": 2},
    )
    assert read_chat_completion(body) == [
        ChatDelta(tool_calls=(ToolCallDelta(0, "{}", "a", "f"),), usage=Usage(1, 2)),
        ChatDelta(finish_reason="tool_calls"),
    ]


@pytest.mark.parametrize("name", ["f", "g"])
@pytest.mark.parametrize("index", [None, 0])
def test_each_call_of_a_completion_is_kept_although_their_ids_are_equal(name: str, index: int | None) -> None:
    calls = [call(index, "a", "f", '{"n":1}'), call(index, "a", name, '{"n":2}')]
    deltas = read_chat_completion(completion({"content": None, "tool_calls": calls}))
    assert deltas[0].tool_calls == (
        ToolCallDelta(0, '{"n":1}', "a", "f"),
        ToolCallDelta(1, '{"n":2}', None, name),
    )


def test_a_completion_without_a_finish_reason_gets_one() -> None:
    assert read_chat_completion(completion({"content": "a"}, None)) == [ChatDelta("a"), ChatDelta(finish_reason="stop")]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"reply": "a"}', b"\xff", b'{"choices": []}'])
def test_a_body_that_is_no_completion_is_an_error(body: bytes) -> None:
    with pytest.raises(UpstreamInvalidResponseError):
        read_chat_completion(body)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({}, None),
        ({"prompt_tokens": "3"}, None),
        ({"prompt_tokens": 3, "completion_tokens": None, "prompt_tokens_details": None}, Usage(3)),
        ({"input_tokens": 3, "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 2}}, Usage(3, 4, 0, 2)),
        ({"prompt_tokens": 10**400, "completion_tokens": -1}, Usage(MAX_TOKENS)),
    ],
)
def test_usage(usage: Any, expected: Usage | None) -> None:
    assert read_usage(usage) == expected


@pytest.mark.parametrize(
    ("completion", "total", "expected"),
    [(9, 151, 119), (119, 151, 119), (9, 130, 98), (9, 1000, 119), (9, None, 9), (9, 30, 9)],
    ids=["beside", "included", "in part", "total has more", "no total", "wrong total"],
)
def test_reasoning_tokens_count_once_wherever_the_upstream_counts_them(
    completion: int, total: int | None, expected: int
) -> None:
    details = {"reasoning_tokens": 110}
    usage = {"prompt_tokens": 32, "completion_tokens": completion, "total_tokens": total}
    assert read_usage({**usage, "completion_tokens_details": details}) == Usage(32, expected, reasoning_tokens=110)


def events(*blocks: bytes) -> list[ChatDelta | Heartbeat]:
    response = Response()
    response.blocks = lambda: iter(blocks)  # type: ignore[method-assign]
    return list(read_chat_stream(response))


def event_of(*args: Any, **fields: Any) -> bytes:
    return b"data: " + json.dumps(chunk(*args, **fields)).encode()


HELLO, STOP, END = event_of({"content": "Hello"}), event_of({}, "stop"), b"data: [DONE]\n\n"

NO_CONTENT = {
    "only the end mark": [END],
    "comments": [b": PROCESSING\n\n", END],
    "a role": [event_of({"role": "assistant", "content": ""}) + b"\n\n", END],
    "usage": [b'data: {"choices": [], "usage": {"prompt_tokens": 1}}\n\n', END],
}


@pytest.mark.parametrize("blocks", NO_CONTENT.values(), ids=NO_CONTENT)
def test_a_stream_without_content_is_no_answer(blocks: list[bytes]) -> None:
    with pytest.raises(UpstreamInvalidResponseError, match="no content"):
        events(*blocks)


ERRORS = {
    "a named event": (b'event: error\ndata: {"code": "Throttling", "message": "boom"}\n\n', 429),
    "a named event of text": (b"event: error\ndata: boom\n\n", 502),
    "a field": (b"error: boom\n\n", 502),
    "an object error": (b'data: {"object": "error", "message": "boom", "code": 400}\n\n', 400),
    "Databricks": (b'data: {"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "boom"}\n\n', 429),
    "FastAPI": (b'data: {"detail": "boom"}\n\n', 502),
    "a code and a message": (b'data: {"code": "overloaded_error", "message": "boom"}\n\n', 503),
    "an error as the last event": (b'event: error\ndata: {"message": "boom"}', 502),
}


@pytest.mark.parametrize(("error", "status"), ERRORS.values(), ids=ERRORS)
def test_errors_of_every_shape_are_raised_with_the_upstreams_words(error: bytes, status: int) -> None:
    for before in ([], [HELLO + b"\n\n"], [HELLO + b"\n\n", STOP + b"\n\n"]):
        with pytest.raises(UpstreamStatusError, match="boom") as raised:
            events(*before, error, END)
        assert raised.value.upstream_status == status


@pytest.mark.parametrize("event", [b'{"type": "ping"}', b'{"message": "queued"}', b'{"code": 0, "message": "ok"}'])
def test_events_that_are_neither_chunks_nor_errors_are_skipped(event: bytes) -> None:
    deltas = events(b"data: " + event + b"\n\n", HELLO + b"\n\n", STOP + b"\n\n", END)
    assert deltas == [ChatDelta("Hello"), ChatDelta(finish_reason="stop")]


BROKEN = {
    "a text": b'data: {"choices": [{"delta": {"content": "n\n\n',
    "arguments": b'data: {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "00}}]}}]}\n\n',
    "reasoning": b'data: {"choices": [{"delta": {"reasoning_content": "hm"}\n\n',
    "JSON in the next line": b"data:\n" + HELLO.removeprefix(b"data: ") + b"\n\n",
    "JSON without a field": HELLO.removeprefix(b"data: ") + b"\n\n",
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_event_that_may_have_carried_content_is_an_error(broken: bytes) -> None:
    """Without it the answer would lose a word, or an amount in a tool call would be another one."""
    with pytest.raises(UpstreamInvalidResponseError, match="carried content"):
        events(HELLO + b"\n\n", broken, HELLO + b"\n\n", STOP + b"\n\n", END)


def test_a_broken_event_without_content_is_skipped() -> None:
    deltas = events(b"data: {\n\n", b"junk\n\n", HELLO + b"\n\n", STOP + b"\n\n", END)
    assert deltas == [ChatDelta("Hello"), ChatDelta(finish_reason="stop")]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n", b"\r\n"])
def test_events_with_any_line_end_and_with_single_line_ends(end: bytes) -> None:
    deltas = events(end.join([HELLO, HELLO, STOP, b"data: [DONE]"]) + b"\n\n")
    assert deltas == [ChatDelta("Hello"), ChatDelta("Hello"), ChatDelta(finish_reason="stop")]


def test_a_last_event_without_its_end_counts_if_it_is_complete() -> None:
    assert events(HELLO + b"\n\n", STOP) == [ChatDelta("Hello"), ChatDelta(finish_reason="stop")]
    with pytest.raises(UpstreamTruncatedError, match="middle of an event"):
        events(HELLO + b"\n\n", HELLO[:-5])
