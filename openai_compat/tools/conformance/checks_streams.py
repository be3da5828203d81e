"""Questions about streamed chats: the events, and the chunks in them."""

from __future__ import annotations

from .checks_chat import FINISH_REASONS
from .client import CheckSkipped, ConformanceClient, error_of, expect, to_stream
from .registry import Section

SSE = Section("event streams")
CHUNKS = Section("chat chunks")
LONG_ANSWER_TIMEOUT = 0.3
"""A stream that is done sooner tells nothing about whether it was held back."""


@SSE.question("the type is text/event-stream", why="browsers and proxies decide by it")
def media_type(interview: ConformanceClient) -> None:
    to_stream(interview.stream_answer)


@SSE.question("Cache-Control forbids to keep it", why="a cache on the way would collect it first")
def cache_control(interview: ConformanceClient) -> None:
    value = interview.stream_answer.headers.get("cache-control", "")
    expect("no-cache" in value or "no-store" in value, f"cache-control {value!r}")


@SSE.question("X-Accel-Buffering: no", why="nginx in its usual configuration holds the events back")
def accel_buffering(interview: ConformanceClient) -> None:
    value = interview.stream_answer.headers.get("x-accel-buffering")
    expect(value == "no", f"x-accel-buffering {value!r}")


@SSE.question("neither length nor compression", why="both need the whole answer, or a block of it, first")
def length_and_compression(interview: ConformanceClient) -> None:
    for name in ("content-length", "content-encoding"):
        expect(name not in interview.stream_answer.headers, f"{name} {interview.stream_answer.headers.get(name)}")


@SSE.question("`data:` lines and comments, nothing else", why="simple clients take every other line for data")
def lines(interview: ConformanceClient) -> None:
    stream = interview.stream
    expect(not stream.names, f"event: {stream.names[:1]}")
    expect(not stream.others, f"the line {stream.others[:1]}")
    expect(all(stream.data), "an empty data: line")


@SSE.question("`data: [DONE]` ends it, once", why="clients wait for it, or take what has none for cut")
def done(interview: ConformanceClient) -> None:
    stream = interview.stream
    expect(stream.data.count("[DONE]") == 1, f"{stream.data.count('[DONE]')} times [DONE]")
    expect(stream.data[-1] == "[DONE]", f"after it: {stream.data[-1][:80]}")
    expect(not stream.rest.strip(), f"after the last event: {stream.rest[:80]!r}")


@SSE.question("events come as they are made", why="a stream in one lump is a slow answer")
def comes_as_it_is_made(interview: ConformanceClient) -> None:
    answer = interview.stream_answer
    for is_last in (False, False, True):  # a busy machine makes a lump of one answer, not of three
        expect(answer.arrivals, "nothing came")
        begin, end = answer.arrivals[0][0], answer.arrivals[-1][0]
        if end < LONG_ANSWER_TIMEOUT:
            raise CheckSkipped(f"the whole answer took {end:.2f} s: nothing can be told from that")
        if end - begin > end / 10:
            return
        expect(not is_last, f"all of it came within the last {end - begin:.2f} of {end:.2f} s")
        answer = interview.stream_long_answer()


@SSE.question("a bad request is a status, not a stream", why="a 200 is not retried, and an error in it not expected")
def error_before_the_stream(interview: ConformanceClient) -> None:
    payload = {"model": interview.subject.model, "stream": True, "messages": "hi"}
    error_of(interview.post("chat/completions", payload), 400)


@SSE.question("characters beyond ASCII come whole", why="a character cut between two reads becomes �")
def characters(interview: ConformanceClient) -> None:
    stream = interview.ask_stream("Repeat exactly: é 日本 🌍")
    text = "".join(choice["delta"].get("content") or "" for choice in stream.choices())
    expect("\ufffd" not in text, f"{text!r}")


@CHUNKS.question("each is a `chat.completion.chunk` with id, created, model and choices", why="typed clients")
def chunk_objects(interview: ConformanceClient) -> None:
    for chunk in interview.stream.objects:
        expect(chunk["object"] == "chat.completion.chunk", f"object {chunk['object']!r}")
        missing = {"id", "created", "model", "choices"} - chunk.keys()
        expect(not missing, f"a chunk without {', '.join(sorted(missing))}")


@CHUNKS.question("id, created and model are the same in all", why="clients put the pieces together by the id")
def one_id(interview: ConformanceClient) -> None:
    seen = {(chunk["id"], chunk["created"], chunk["model"]) for chunk in interview.stream.objects}
    expect(len(seen) == 1, f"{len(seen)} different: {sorted(map(str, seen))[:2]}")


@CHUNKS.question("the role comes first, once", why="Python's accumulator would make `assistantassistant` of two")
def one_role(interview: ConformanceClient) -> None:
    choices = interview.stream.choices()
    roles = [choice["delta"].get("role") for choice in choices]
    expect(roles[0] == "assistant", f"the first delta is {choices[0]['delta']}")
    expect(sum(role is not None for role in roles) == 1, f"{sum(role is not None for role in roles)} roles")


@CHUNKS.question("one `finish_reason`, in the last chunk of the choice", why="the AI SDK fails without one")
def one_finish_reason(interview: ConformanceClient) -> None:
    choices = interview.stream.choices()
    reasons = [choice["finish_reason"] for choice in choices if choice.get("finish_reason") is not None]
    expect(len(reasons) == 1, f"finish reasons {reasons}")
    expect(reasons[0] in FINISH_REASONS, f"finish_reason {reasons[0]!r}")
    expect(choices[-1].get("finish_reason") is not None, f"a choice after it: {choices[-1]}")


@CHUNKS.question("`finish_reason` is null in the others, not absent", why="compiled clients look the key up")
def finish_reason_is_null(interview: ConformanceClient) -> None:
    expect(all("finish_reason" in choice for choice in interview.stream.choices()), "a choice without finish_reason")


@CHUNKS.question("without being asked, no usage and no chunk without choices", why="`chunk.choices[0]` is everywhere")
def no_usage_unasked(interview: ConformanceClient) -> None:
    objects = interview.stream.objects
    expect(not any(chunk.get("usage") for chunk in objects), "usage")
    expect(all(chunk["choices"] for chunk in objects[1:]), "a chunk without choices")


@CHUNKS.question("with `include_usage`, the last chunk has it, and no choices", why="bills are made of it")
def usage_when_asked(interview: ConformanceClient) -> None:
    last = interview.stream_with_usage.objects[-1]
    usage = last.get("usage") or {}
    expect(usage.get("total_tokens"), f"the last chunk is {str(last)[:120]}")
    expect(last["choices"] == [], f"choices {last['choices']}")
    expect(usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"], f"usage {usage}")


@CHUNKS.question("with `include_usage`, the others say `usage: null`", why="so does OpenAI; some clients look it up")
def usage_is_null_before(interview: ConformanceClient) -> None:
    others = interview.stream_with_usage.objects[:-1]
    expect(all("usage" in chunk and chunk["usage"] is None for chunk in others), "chunks without `usage: null`")


@CHUNKS.question("several answers are told apart by `index`, each with role and reason", why="they come interleaved")
def several_streams(interview: ConformanceClient) -> None:
    answer = interview.ask_chat(n=2, stream=True)
    if answer.status in {400, 501}:
        raise CheckSkipped("the model gives one answer at a time, and says so")
    stream = to_stream(answer)
    for index in (0, 1):
        choices = stream.choices(index)
        expect(choices, f"no choice {index}")
        expect(sum("role" in choice["delta"] for choice in choices) == 1, f"choice {index}: not one role")
        expect(sum(bool(choice["finish_reason"]) for choice in choices) == 1, f"choice {index}: not one reason")
