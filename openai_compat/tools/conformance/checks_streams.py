"""Checks of streamed chats, their events and the chunks in them."""

from __future__ import annotations

from .checks_chat import FINISH_REASONS
from .client import CheckSkipped, ConformanceClient, expect, require_error, require_stream
from .registry import Section

SSE = Section("event streams")
CHUNKS = Section("chat chunks")
MIN_STREAM_SECONDS = 0.3
"""Shorter streams do not show whether they were buffered."""


@SSE.check(
    "the content type is text/event-stream",
    why="browsers and proxies depend on it",
)
def media_type(client: ConformanceClient) -> None:
    require_stream(client.stream_response)


@SSE.check(
    "Cache-Control forbids caching",
    why="a cache in between would buffer the stream",
)
def cache_control(client: ConformanceClient) -> None:
    value = client.stream_response.headers.get("cache-control", "")
    expect("no-cache" in value or "no-store" in value, f"cache-control {value!r}")


@SSE.check(
    "X-Accel-Buffering is no",
    why="nginx buffers events by default",
)
def accel_buffering(client: ConformanceClient) -> None:
    value = client.stream_response.headers.get("x-accel-buffering")
    expect(value == "no", f"x-accel-buffering {value!r}")


@SSE.check(
    "there is no content length and no compression",
    why="both buffer the response or a block of it",
)
def length_and_compression(client: ConformanceClient) -> None:
    for name in ("content-length", "content-encoding"):
        expect(name not in client.stream_response.headers, f"{name} {client.stream_response.headers.get(name)}")


@SSE.check(
    "there are only `data:` lines and comments",
    why="simple clients parse every other line as data",
)
def lines(client: ConformanceClient) -> None:
    stream = client.stream
    expect(not stream.names, f"event: {stream.names[:1]}")
    expect(not stream.other_lines, f"the line {stream.other_lines[:1]}")
    expect(all(stream.data), "an empty data: line")


@SSE.check(
    "`data: [DONE]` ends the stream, once",
    why="clients wait for it, or treat a stream without it as truncated",
)
def done(client: ConformanceClient) -> None:
    stream = client.stream
    expect(stream.data.count("[DONE]") == 1, f"[DONE] occurs {stream.data.count('[DONE]')} times")
    expect(stream.data[-1] == "[DONE]", f"data after it: {stream.data[-1][:80]}")
    expect(not stream.rest.strip(), f"text after the last event: {stream.rest[:80]!r}")


@SSE.check(
    "events arrive as they are generated",
    why="a buffered stream is a slow response",
)
def not_buffered(client: ConformanceClient) -> None:
    response = client.stream_response
    for is_last_try in (False, False, True):  # a busy machine can deliver one response in a single block, but not three
        expect(response.chunk_times, "the body is empty")
        first, last = response.chunk_times[0][0], response.chunk_times[-1][0]
        if last < MIN_STREAM_SECONDS:
            raise CheckSkipped(f"the complete response took {last:.2f} s, too little to detect buffering")
        if last - first > last / 10:
            return
        expect(not is_last_try, f"everything arrived within the last {last - first:.2f} of {last:.2f} s")
        response = client.stream_long_answer()


@SSE.check(
    "a bad request returns a status, not a stream",
    why="clients do not retry a 200, and expect no error in it",
)
def error_before_the_stream(client: ConformanceClient) -> None:
    payload = {"model": client.target.model, "stream": True, "messages": "hi"}
    require_error(client.post("chat/completions", payload), 400)


@SSE.check(
    "characters beyond ASCII arrive intact",
    why="a character split between two reads becomes �",
)
def non_ascii_characters(client: ConformanceClient) -> None:
    stream = client.stream_chat("Repeat exactly: é 日本 🌍")
    text = "".join(choice["delta"].get("content") or "" for choice in stream.choices())
    expect("\ufffd" not in text, f"{text!r}")


@CHUNKS.check(
    "each chunk is a `chat.completion.chunk` with id, created, model and choices",
    why="typed clients read each of them",
)
def chunk_objects(client: ConformanceClient) -> None:
    for chunk in client.stream.objects:
        expect(chunk["object"] == "chat.completion.chunk", f"object {chunk['object']!r}")
        missing = {"id", "created", "model", "choices"} - chunk.keys()
        expect(not missing, f"a chunk without {', '.join(sorted(missing))}")


@CHUNKS.check(
    "id, created and model are the same in all chunks",
    why="clients join the chunks by the id",
)
def same_id_in_all_chunks(client: ConformanceClient) -> None:
    seen = {(chunk["id"], chunk["created"], chunk["model"]) for chunk in client.stream.objects}
    expect(len(seen) == 1, f"{len(seen)} combinations: {sorted(map(str, seen))[:2]}")


@CHUNKS.check(
    "the role is in the first delta only",
    why="Python's accumulator would produce `assistantassistant`",
)
def one_role(client: ConformanceClient) -> None:
    choices = client.stream.choices()
    roles = [choice["delta"].get("role") for choice in choices]
    expect(roles[0] == "assistant", f"the first delta is {choices[0]['delta']}")
    expect(sum(role is not None for role in roles) == 1, f"{sum(role is not None for role in roles)} roles")


@CHUNKS.check(
    "one `finish_reason`, in the last chunk of the choice",
    why="the AI SDK fails without one",
)
def one_finish_reason(client: ConformanceClient) -> None:
    choices = client.stream.choices()
    reasons = [choice["finish_reason"] for choice in choices if choice.get("finish_reason") is not None]
    expect(len(reasons) == 1, f"finish reasons {reasons}")
    expect(reasons[0] in FINISH_REASONS, f"finish_reason {reasons[0]!r}")
    expect(choices[-1].get("finish_reason") is not None, f"a choice after it: {choices[-1]}")


@CHUNKS.check(
    "`finish_reason` is null in the other chunks, not absent",
    why="compiled clients read the key",
)
def finish_reason_is_null(client: ConformanceClient) -> None:
    expect(all("finish_reason" in choice for choice in client.stream.choices()), "a choice without finish_reason")


@CHUNKS.check(
    "without `include_usage`, no usage and no chunk without choices",
    why="client code reads `chunk.choices[0]`",
)
def no_usage_by_default(client: ConformanceClient) -> None:
    objects = client.stream.objects
    expect(not any(chunk.get("usage") for chunk in objects), "a chunk has usage")
    expect(all(chunk["choices"] for chunk in objects[1:]), "a chunk without choices")


@CHUNKS.check(
    "with `include_usage`, the last chunk has usage and no choices",
    why="bills are computed from it",
)
def usage_on_request(client: ConformanceClient) -> None:
    last = client.stream_with_usage.objects[-1]
    usage = last.get("usage") or {}
    expect(usage.get("total_tokens"), f"the last chunk is {str(last)[:120]}")
    expect(last["choices"] == [], f"choices {last['choices']}")
    expect(usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"], f"usage {usage}")


@CHUNKS.check(
    "with `include_usage`, the other chunks have `usage: null`",
    why="OpenAI sends it, and some clients read the key",
)
def usage_null_in_other_chunks(client: ConformanceClient) -> None:
    others = client.stream_with_usage.objects[:-1]
    expect(all("usage" in chunk and chunk["usage"] is None for chunk in others), "chunks without `usage: null`")


@CHUNKS.check(
    "choices differ by `index`, each with a role and a reason",
    why="their chunks are interleaved",
)
def several_streamed_choices(client: ConformanceClient) -> None:
    response = client.post_chat(n=2, stream=True)
    if response.status in {400, 501}:
        raise CheckSkipped("the model supports one choice only")
    stream = require_stream(response)
    for index in (0, 1):
        choices = stream.choices(index)
        expect(choices, f"no choice {index}")
        expect(sum("role" in choice["delta"] for choice in choices) == 1, f"choice {index}: not one role")
        expect(sum(bool(choice["finish_reason"]) for choice in choices) == 1, f"choice {index}: not one reason")
