"""Complete answers as chunks, and chunks as complete answers."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.services.completion_chunks import CompletionCollector, to_chunks

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
LOGPROBS = {"content": [{"token": "Hi", "logprob": -0.1, "bytes": None, "top_logprobs": []}], "refusal": None}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
CHAT = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi", "reasoning_content": "hm"},
            "logprobs": LOGPROBS,
            "finish_reason": "stop",
        },
        {
            "index": 1,
            "message": {"role": "assistant", "content": None, "tool_calls": [CALL]},
            "logprobs": None,
            "finish_reason": "tool_calls",
        },
    ],
    "usage": USAGE,
}
TEXT = {
    "id": "c",
    "object": "text_completion",
    "created": 1,
    "model": "m",
    "choices": [{"text": "Hi", "index": 0, "logprobs": None, "finish_reason": "length"}],
    "usage": USAGE,
}


@pytest.mark.parametrize("completion", [CHAT, TEXT], ids=["chat", "text"])
def test_a_completion_survives_its_way_through_chunks(completion: dict[str, Any]) -> None:
    collector = CompletionCollector()
    for chunk in to_chunks(completion, includes_usage=True):
        collector.add(chunk)
    assert collector.to_completion() == completion


def test_the_chunks_of_a_chat_have_deltas_and_one_finish_reason_for_each_choice() -> None:
    chunks = list(to_chunks(CHAT, includes_usage=False))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert all("delta" in choice and "message" not in choice for chunk in chunks for choice in chunk["choices"])
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert reasons == [None, "stop", None, "tool_calls"]
    assert chunks[2]["choices"][0]["delta"]["tool_calls"][0]["index"] == 0
    assert all("usage" not in chunk for chunk in chunks)


def test_deltas_are_joined_by_choice_and_call() -> None:
    def chunk(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {"id": "c", "object": "chat.completion.chunk", "choices": [
            {"index": index, "delta": delta, "finish_reason": finish}
        ]}  # fmt: skip

    collector = CompletionCollector()
    for part in (
        chunk(0, {"role": "assistant", "content": ""}),
        chunk(1, {"role": "assistant", "content": "b"}),
        chunk(0, {"tool_calls": [{"index": 0, "id": "x", "type": "function", "function": {"name": "f"}}]}),
        chunk(0, {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]}),
        chunk(0, {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}),
        chunk(0, {}, "tool_calls"),
        chunk(1, {}, "stop"),
    ):
        collector.add(part)
    first, second = collector.to_completion()["choices"]
    assert first["message"]["tool_calls"] == [
        {"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    ]
    assert (first["finish_reason"], second["finish_reason"]) == ("tool_calls", "stop")
    assert second["message"]["content"] == "b"
