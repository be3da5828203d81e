"""Checks of text completions."""

from __future__ import annotations

from .client import ConformanceClient, expect, require_object, require_stream
from .registry import Section

COMPLETIONS = Section("text completions")


@COMPLETIONS.check(
    "the response is a `text_completion` with text, finish_reason and usage",
    why="typed clients read each of them",
)
def text_completion(client: ConformanceClient) -> None:
    completion = client.completion
    expect(completion["object"] == "text_completion", f"object {completion['object']!r}")
    choice = completion["choices"][0]
    missing = {"text", "index", "logprobs", "finish_reason"} - choice.keys()
    expect(not missing, f"a choice without {', '.join(sorted(missing))}")
    expect(completion["usage"]["total_tokens"], f"usage {completion['usage']}")


@COMPLETIONS.check(
    "a stream has `text_completion` chunks and ends with [DONE]",
    why="there is no other object type for the chunks",
)
def text_completion_chunks(client: ConformanceClient) -> None:
    stream = require_stream(client.post_completion("Once upon a time", stream=True))
    expect(stream.data[-1] == "[DONE]", f"the end is {stream.data[-1][:80]}")
    for chunk in stream.objects:
        expect(chunk["object"] == "text_completion", f"object {chunk['object']!r}")
        for choice in chunk["choices"]:
            missing = {"text", "index", "logprobs", "finish_reason"} - choice.keys()
            expect(not missing, f"a choice without {', '.join(sorted(missing))}")


@COMPLETIONS.check(
    "several prompts in one call are answered in order",
    why="evaluations send prompts in batches",
)
def several_prompts(client: ConformanceClient) -> None:
    choices = require_object(client.post_completion(["One", "Two"]))["choices"]
    expect([choice["index"] for choice in choices] == [0, 1], f"{len(choices)} choices")


@COMPLETIONS.check(
    "a prompt may be token ids",
    why="evaluation tools send nothing else",
)
def prompt_of_token_ids(client: ConformanceClient) -> None:
    require_object(client.post_completion([1, 2, 3]))
