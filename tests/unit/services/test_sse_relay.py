"""The relay of a forwarded stream, its usage, its broken events and its end."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from openai_compat.core.errors import (
    UpstreamError,
    UpstreamInvalidResponseError,
    UpstreamStatusError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
)
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import Usage
from openai_compat.services.event_template import EventTemplate
from tests.support.scripted_response import ScriptedResponse
from tests.support.sse_relay import SSERelay

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def event(**chunk: object) -> bytes:
    return b"data: " + json.dumps(chunk, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def content(text: str, **more: object) -> bytes:
    return event(id="c", choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more)


FINISH = event(id="c", choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
DONE = b"data: [DONE]\n\n"


def relayed(*blocks: bytes | Heartbeat, strip_usage: bool = False) -> bytes:
    relay = SSERelay(ScriptedResponse(*blocks), strip_usage=strip_usage)
    return b"".join(block for block in relay if isinstance(block, bytes))


def test_a_valid_stream_passes_byte_for_byte() -> None:
    stream = content("hé") + content('"finish_reason": "stop" and data: [DONE]') + FINISH + DONE
    assert relayed(stream) == stream


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_the_split_into_blocks_does_not_change_the_stream(line_end: bytes) -> None:
    stream = (b": ping\n\n" + content("añ🎉") + b"event: x\nid: 1\n" + content("b" * 300) + FINISH + DONE).replace(
        b"\n", line_end
    )
    dice = random.Random(7)
    for _ in range(200):
        cuts = sorted(dice.sample(range(1, len(stream)), dice.randint(0, 40)))
        blocks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        assert relayed(*blocks) == stream


def test_an_event_is_yielded_once_it_is_complete() -> None:
    first, second = content("one"), content("two")
    relay = SSERelay(ScriptedResponse(first + second[:10], second[10:], FINISH + DONE), strip_usage=False)
    assert [next(relay), next(relay)] == [first, second]


def test_heartbeats_pass() -> None:
    relay = SSERelay(ScriptedResponse(HEARTBEAT, content("a"), HEARTBEAT, FINISH + DONE), strip_usage=False)
    assert [block is HEARTBEAT for block in relay] == [True, False, True, False]


def test_requested_usage_is_read_and_kept() -> None:
    stream = content("a", usage=None) + FINISH + event(id="c", choices=[], usage=USAGE) + DONE
    relay = SSERelay(ScriptedResponse(stream), strip_usage=False)
    assert b"".join(block for block in relay if isinstance(block, bytes)) == stream
    assert relay.usage == Usage(3, 2)


def test_usage_that_the_client_did_not_request_is_read_and_removed() -> None:
    blocks = [content("a", usage=None), FINISH, event(id="c", choices=[], usage=USAGE), DONE]
    relay = SSERelay(ScriptedResponse(*blocks), strip_usage=True)
    assert b"".join(block for block in relay if isinstance(block, bytes)) == content("a") + FINISH + DONE
    assert relay.usage == Usage(3, 2)


def test_usage_is_removed_from_the_last_chunk() -> None:
    last = event(id="c", choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=USAGE)
    assert relayed(content("a"), last, DONE, strip_usage=True) == content("a") + FINISH + DONE


def test_the_first_chunk_of_azure_without_choices_is_kept() -> None:
    first = event(id="", choices=[], prompt_filter_results=[{"prompt_index": 0}])
    stream = first + content("a") + FINISH + DONE
    assert relayed(stream, strip_usage=True) == stream


def test_an_empty_error_is_removed_because_clients_raise_on_it() -> None:
    assert relayed(content("a", error={}), FINISH + DONE) == content("a") + FINISH + DONE


def test_an_error_event_passes_unchanged() -> None:
    stream = content("a") + event(error={"message": "x", "type": "server_error", "param": None, "code": None})
    assert relayed(stream) == stream


def test_done_after_an_error_is_dropped() -> None:
    error = event(error={"message": "x", "type": "server_error", "param": None, "code": None})
    assert relayed(content("a") + error + DONE) == content("a") + error
    assert relayed(content("a"), error, DONE) == content("a") + error


def test_an_answer_with_one_finished_choice_of_two_is_truncated() -> None:
    def finish(index: int) -> bytes:
        return event(id="c", choices=[{"index": index, "delta": {}, "finish_reason": "stop"}])

    both = SSERelay(ScriptedResponse(content("a") + finish(0), finish(1)), strip_usage=False, choices=2)
    assert list(both)[-1] == DONE
    one = SSERelay(ScriptedResponse(content("a") + finish(0)), strip_usage=False, choices=2)
    with pytest.raises(UpstreamTruncatedError):
        list(one)


def test_a_broken_event_is_dropped_and_the_others_pass(caplog: pytest.LogCaptureFixture) -> None:
    broken = b'data: {"error" broken\n\n'
    assert relayed(content("a") + broken + FINISH + DONE) == content("a") + FINISH + DONE
    assert relayed(content("a"), broken, FINISH, DONE) == content("a") + FINISH + DONE
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_a_broken_event_in_place_of_the_end_is_an_error() -> None:
    for stream in (content("a")[:-3] + b"\n\n" + DONE, content("a") + FINISH[:-3] + b"\n\n" + DONE):
        with pytest.raises(UpstreamInvalidResponseError):
            relayed(stream)


def test_events_of_several_lines_and_without_data_pass() -> None:
    stream = b": ping\n\nevent: note\nid: 3\n\n" + b'data: {"id":\ndata: "c"}\n\n' + FINISH + DONE
    assert relayed(stream) == stream


class EndlessResponse(ScriptedResponse):
    """Response that sends nothing after its blocks until the idle limit, if one was set."""

    idle_limit: float | None = None

    def blocks(self) -> Iterator[bytes | Heartbeat]:
        yield from super().blocks()
        raise UpstreamTimeoutError("idle") if self.idle_limit else UpstreamTruncatedError("no idle limit")

    def limit_remaining(self, seconds: float) -> None:
        self.idle_limit = seconds


@pytest.mark.parametrize("strip_usage", [True, False])
def test_a_complete_answer_without_done_ends_after_an_idle_gap(*, strip_usage: bool) -> None:
    reply = EndlessResponse(content("a"), FINISH, event(id="c", choices=[], usage=USAGE))
    relay = SSERelay(reply, strip_usage=strip_usage)
    assert list(relay)[-1] == DONE
    assert reply.idle_limit == 1.0
    assert relay.usage == Usage(3, 2)


def test_an_idle_gap_before_the_usage_is_no_end() -> None:
    with pytest.raises(UpstreamTruncatedError):
        list(SSERelay(EndlessResponse(content("a"), FINISH), strip_usage=True))


def test_done_is_added_to_a_finished_answer() -> None:
    assert relayed(content("a") + FINISH) == content("a") + FINISH + DONE


def test_done_without_a_blank_line_ends_the_stream() -> None:
    assert relayed(content("a") + FINISH + b"data: [DONE]") == content("a") + FINISH + DONE


@pytest.mark.parametrize(
    "blocks",
    [[], [content("a")], [content("a"), content("b")[:20]], [FINISH, content("b")[:20]]],
    ids=["empty", "no finish", "in an event", "in an event after the finish"],
)
def test_a_truncated_stream_is_an_error(blocks: list[bytes | Heartbeat]) -> None:
    with pytest.raises(UpstreamTruncatedError):
        relayed(*blocks)


def test_only_a_stream_read_to_its_end_releases_its_connection() -> None:
    complete, partial = ScriptedResponse(content("a") + FINISH + DONE), ScriptedResponse(content("a"), FINISH + DONE)
    relay = SSERelay(complete, strip_usage=False)
    list(relay)
    relay.close()
    relay = SSERelay(partial, strip_usage=False)
    next(relay)
    relay.close()
    assert (complete.endings, partial.endings) == (["released"], ["closed"])


TEXTS = [
    "plain",
    ' "quoted" ',
    "back\\",
    "\\",
    "",
    "é 😀",
    '{"error": {"message": "x"}}',
    '"usage":{"prompt_tokens":1}',
    "[DONE]",
]
ODD_BLOCKS = [
    FINISH,
    event(id="c", choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]),
    event(id="d", choices=[{"index": 0, "delta": {"content": "of another id"}, "finish_reason": None}]),
    event(id="c", choices=[], usage=USAGE),
    event(error={"message": "x", "type": "server_error", "param": None, "code": None}),
    content("two ") + content("events"),
    content("text")[:-2] + b"\r\r" + DONE,
    content("text").replace(b"text", b'x"}, "finish_reason": "stop"}], "y": [{"z": {"v": "'),
    content("text").replace(b"text", b"raw\n\ndata: [DONE]\n\n"),
    content("text").replace(b"text", b"raw\r\rdata: [DONE]\r\r"),
    content("ends with a backslash").replace(b"backslash", b"\\"),
    content("text")[:-4] + b"\n\n",
    DONE,
]


@pytest.mark.parametrize("strip_usage", [False, True])
def test_templates_do_not_change_what_is_relayed(monkeypatch: pytest.MonkeyPatch, *, strip_usage: bool) -> None:
    """Relay random streams twice, the second time without templates."""

    def outcome(blocks: list[bytes | Heartbeat]) -> object:
        passed: list[bytes | Heartbeat] = []
        relay = SSERelay(ScriptedResponse(*blocks), strip_usage=strip_usage)
        try:
            passed.extend(relay)
        except (UpstreamTruncatedError, UpstreamInvalidResponseError) as error:
            return passed, relay.usage, relay.failure is not None, str(error)
        return passed, relay.usage, relay.failure is not None

    rng = random.Random(7)
    streams: list[list[bytes | Heartbeat]] = []
    for _ in range(400):
        more = rng.choice([{}, {"usage": None}, {"model": "m", "usage": None}])
        texts = [content(rng.choice(TEXTS), **more) for _ in range(rng.randrange(1, 8))]
        odd = rng.sample(ODD_BLOCKS, rng.randrange(3))
        streams.append(rng.sample([*texts, *odd], len(texts) + len(odd)) + [FINISH, DONE][: rng.randrange(3)])
    known = [outcome(blocks) for blocks in streams]
    monkeypatch.setattr(EventTemplate, "match", lambda self, event: None)
    assert [outcome(blocks) for blocks in streams] == known


@pytest.mark.parametrize(
    "broken",
    [
        b'data: {"choices":[{"delta":{"content":" not\n\n',
        b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"00\n\n',
        b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}\n\n',
        b'data:\n{"choices":[{"delta":{"content":"x"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","function":{"na\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content"\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":["not "]\n\n',
        b'data: {"choices":[{"index":0,"del\n\n',
        content("not \xe9").replace("\xe9".encode(), b"\xe9"),
        content("not x").replace(b"x", b"\\d"),
        content("not x").replace(b"x", b"\x01"),
    ],
    ids=[
        "text",
        "tool arguments",
        "reasoning",
        "data on the next line",
        "name of a tool",
        "text that did not begin",
        "text in a list",
        "delta that did not begin",
        "not UTF-8",
        "wrong escape",
        "control character",
    ],
)
def test_a_broken_event_that_carried_content_is_an_error(broken: bytes) -> None:
    with pytest.raises(UpstreamInvalidResponseError, match="carried content"):
        relayed(content("Transfer"), content(" half"), broken, content(" the money"), FINISH + DONE)


def test_a_byte_order_mark_before_the_first_event_is_removed() -> None:
    """It belongs to the encoding of the stream, and the clients would skip the event."""
    stream = content("a") + content("b") + FINISH + DONE
    assert relayed(b"\xef\xbb\xbf" + stream) == stream


def test_a_message_in_the_place_of_a_delta_becomes_one() -> None:
    message = event(choices=[{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}])
    (chunk,) = [json.loads(data[6:]) for data in relayed(message, DONE).split(b"\n\n")[:-2]]
    assert chunk["choices"][0]["delta"] == {"role": "assistant", "content": "Hi"}


def test_a_message_behind_the_deltas_stays_what_clients_ignore() -> None:
    whole = event(choices=[{"index": 0, "message": {"content": "Hello you"}, "finish_reason": "stop"}])
    assert relayed(content("Hello"), content(" you"), whole, DONE) == content("Hello") + content(" you") + whole + DONE


def test_only_a_choice_without_a_delta_gets_its_message() -> None:
    choices = [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "message": {"content": "b"}}]
    relay = SSERelay(ScriptedResponse(event(choices=choices), FINISH, DONE), strip_usage=False)
    first = next(relay)
    assert isinstance(first, bytes)
    assert [choice["delta"]["content"] for choice in json.loads(first[6:])["choices"]] == ["a", "b"]


def test_content_after_the_finish_reason_begins_the_wait_for_the_end_again() -> None:
    """Some servers send a finish reason and usage with each chunk."""
    limits: list[float] = []
    parts = [
        event(id="c", choices=[{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}], usage=USAGE)
        for text in ("Do", " not", " delete", " it")
    ]
    response = ScriptedResponse(*parts, DONE)
    response.limit_remaining = limits.append  # type: ignore[method-assign]  # recorded
    assert b"".join(block for block in SSERelay(response, strip_usage=False) if isinstance(block, bytes)) == b"".join(
        [*parts, DONE]
    )
    assert len(limits) >= len(parts)


def test_events_without_an_empty_line_between_them_are_read() -> None:
    stream = (content("a") + FINISH).replace(b"\n\n", b"\n") + b"\n" + DONE
    assert relayed(stream) == content("a") + FINISH + DONE


HIGH, LOW = b'"\\ud83d"', b'"\\ude00"'


def half(text: bytes) -> bytes:
    return content("@").replace(b'"@"', text)


@pytest.mark.parametrize("between", [b"", content("", note=1)], ids=["at once", "with an event between"])
def test_a_character_split_into_surrogates_arrives_whole(between: bytes) -> None:
    stream = relayed(
        content("a"), content("b"), half(HIGH), between or HEARTBEAT, half(LOW), content("c"), FINISH + DONE
    )
    texts = [
        json.loads(line[6:])["choices"][0]["delta"].get("content", "") for line in stream.splitlines()[:-2] if line
    ]
    assert "".join(texts) == "ab\U0001f600c"


def test_a_lone_surrogate_becomes_a_replacement_character() -> None:
    assert "a\ufffdb".encode() in relayed(content("a"), half(b'"a\\ude00b"'), FINISH + DONE)


@pytest.mark.parametrize(
    "event_",
    [
        b'event: error\ndata: {"code":"Throttling","message":"slow down"}\n\n',
        b"event: error\ndata: slow down\n\n",
        b'error: {"message":"slow down"}\n\n',
        b'data: {"object":"error","message":"slow down","code":429}\n\n',
        b'data: {"errors":[{"message":"slow down"}]}\n\n',
        b'data: {"error":"slow down"}\n\n',
        b'{"error":{"message":"slow down"}}\n\n',
    ],
    ids=["named", "named, no JSON", "error field", "error object", "list of errors", "error text", "no event"],
)
def test_an_error_of_any_shape_ends_the_stream_with_the_upstreams_words(event_: bytes) -> None:
    stream = relayed(content("a"), event_ + DONE)
    *_, last, end = stream.split(b"\n\n")
    assert (end, json.loads(last.removeprefix(b"data: "))["error"]["message"]) == (b"", "slow down")
    relay = SSERelay(ScriptedResponse(event_ + DONE), strip_usage=False)
    with pytest.raises(UpstreamStatusError, match="slow down"):
        relay.prime()


@pytest.mark.parametrize("stream", [DONE, b": ping\n\n" + DONE, b": ping\n\n", b"", b"<html>\n\n"])
def test_a_stream_without_content_is_a_bad_reply(stream: bytes) -> None:
    with pytest.raises(UpstreamError):
        SSERelay(ScriptedResponse(stream), strip_usage=False).prime()


def test_numbers_that_are_not_finite_become_the_lowest_log_probability() -> None:
    event_ = content("a").replace(b'"finish_reason":null', b'"finish_reason":null,"logprobs":[NaN,-Infinity]')
    chunk = json.loads(relayed(event_, FINISH + DONE).splitlines()[0][6:], parse_constant=pytest.fail)
    assert chunk["choices"][0]["logprobs"] == [-9999.0, -9999.0]


def test_a_chunk_that_is_left_without_choices_is_dropped() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    last = FINISH.replace(b'"id"', b'"usage":' + json.dumps(usage).encode() + b',"id"')
    stream = content("a") + last + event(id="c", choices=[]) + DONE
    assert b'"choices":[]' not in relayed(stream, strip_usage=True)


@pytest.mark.parametrize("index", [[1], "x", {}])
def test_an_index_that_is_no_number_is_a_bad_reply(index: object) -> None:
    finish = event(id="c", choices=[{"index": index, "delta": {}, "finish_reason": "stop"}])
    first = event(id="c", choices=[{"index": index, "delta": {"content": "a"}, "finish_reason": None}])
    for stream in (content("a") + finish, first + FINISH):
        if index:
            with pytest.raises(UpstreamInvalidResponseError):
                relayed(stream + DONE)


def test_a_last_event_without_its_empty_line_counts() -> None:
    assert relayed(content("a") + FINISH.rstrip()) == content("a") + FINISH + DONE


def tool_call(finish_reason: str | None = None, **call: object) -> bytes:
    delta = {"tool_calls": [call]} if call else {}
    return event(id="c", choices=[{"index": 0, "delta": delta, "finish_reason": finish_reason}])


def function(arguments: str, name: str | None = None) -> dict[str, str]:
    return {"name": name, "arguments": arguments} if name else {"arguments": arguments}


STARTS = tool_call(index=0, id="a", type="function", function=function("", "f"))
PARTS = [tool_call(index=0, function=function(part)) for part in ('{"x"', ": 1", "0", "}")]
CALLS_END = tool_call("tool_calls")
REPAIRS = {
    "no index": [
        tool_call(id="a", type="function", function=function("", "f")),
        *(tool_call(function=function(part)) for part in ('{"x"', ": 1", "0", "}")),
    ],
    "an index in the first delta only": [STARTS, *(tool_call(function=function(part)) for part in ('{"x": 1', "0}"))],
    "numbered from 1": [
        tool_call(index=1, id="a", type="function", function=function("", "f")),
        *(tool_call(index=1, function=function(part)) for part in ('{"x": 1', "0", "}")),
    ],
    "id and name in every delta": [
        tool_call(index=0, id="a", type="function", function=function(part, "f")) for part in ("", '{"x": 1', "0", "}")
    ],
}


@pytest.mark.parametrize("parts", REPAIRS.values(), ids=REPAIRS)
@pytest.mark.parametrize("end", [CALLS_END, FINISH], ids=["tool_calls", "stop"])
def test_tool_calls_are_as_openai_sends_them(parts: list[bytes], end: bytes) -> None:
    """Clients join the deltas by their index, and agents stop at `stop` (ollama#15457, opencode#14972)."""
    chunks = [json.loads(part[6:]) for part in relayed(*parts, end, DONE).split(b"\n\n")[:-2]]
    calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert [call["index"] for call in calls] == [0] * len(calls)
    assert [call["id"] for call in calls if "id" in call] == ["a"]
    assert [call["function"]["name"] for call in calls if "name" in call["function"]] == ["f"]
    assert "".join(call["function"]["arguments"] for call in calls) == '{"x": 10}'
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_calls_that_all_have_the_index_0_are_numbered() -> None:
    second = tool_call(index=0, id="b", type="function", function=function("", "g"))
    stream = relayed(STARTS, *PARTS, second, *PARTS, CALLS_END, DONE)
    chunks = [json.loads(part[6:]) for part in stream.split(b"\n\n")[:-2]]
    calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert [call["index"] for call in calls] == [0] * 5 + [1] * 5


EMPTY_REASON = {"index": 0, "delta": {}, "finish_reason": ""}
EMPTY_END = event(id="c", choices=[EMPTY_REASON])


@pytest.mark.parametrize(
    "end",
    [event(choices=[EMPTY_REASON]), event(choices=[EMPTY_REASON], usage=USAGE), FINISH],
    ids=["", "usage", "stop"],
)
def test_an_empty_finish_reason_becomes_null_and_stop_at_the_end(end: bytes) -> None:
    beginning = event(choices=[{"index": 0, "delta": {"content": "Hello"}, "finish_reason": ""}])
    *chunks, last = [part.removeprefix(b"data: ") for part in relayed(beginning + end + DONE).split(b"\n\n") if part]
    assert last == b"[DONE]"
    choices = [choice for chunk in chunks for choice in json.loads(chunk)["choices"]]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"] is not None] == ["stop"]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "Hello"


def test_an_empty_finish_reason_after_tool_calls_becomes_tool_calls() -> None:
    stream = relayed(tool_call(index=0, id="a", type="function", function=function("{}", "f")) + EMPTY_END + DONE)
    assert stream.count(b'"finish_reason":"tool_calls"') == 1


@pytest.mark.parametrize("rest", [b"", content("more")])
def test_a_stream_with_an_empty_finish_reason_and_no_end_mark_is_cut(rest: bytes) -> None:
    with pytest.raises(UpstreamTruncatedError):
        relayed(content("a") + EMPTY_END + rest)


def test_nothing_follows_an_error_within_one_event() -> None:
    stream = relayed(content("a"), b'data: {"error":{"message":"overloaded"}}\ndata: [DONE]\n\n')
    assert b"overloaded" in stream
    assert b"[DONE]" not in stream


def test_valid_tool_calls_pass_byte_for_byte() -> None:
    second = tool_call(index=1, id="b", type="function", function=function("", "g"), extra_content={"x": 1})
    others = [part.replace(b'"index":0,"function"', b'"index":1,"function"') for part in PARTS]
    stream = content("Hi") + STARTS + b"".join(PARTS) + second + b"".join(others) + CALLS_END + DONE
    assert relayed(stream) == stream
    assert relayed(content("Hi"), STARTS, *PARTS, second, *others, CALLS_END, DONE) == stream


def test_a_character_split_over_two_parts_of_arguments_arrives_whole() -> None:
    halves = [STARTS, *(tool_call(index=0, function=function(half)) for half in ("AAA", "BBB")), CALLS_END, DONE]
    escaped = [part.replace(b"AAA", rb"\ud83d").replace(b"BBB", rb"\ude00") for part in halves]
    assert "\U0001f600" in relayed(*escaped).decode()
