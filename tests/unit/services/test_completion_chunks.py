"""Complete answers as chunks, and chunks as complete answers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.services.completion_chunks import CompletionCollector, to_chunks

MESSAGE = {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}
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


def collected(*deltas: Any, **choice: Any) -> dict[str, Any]:
    """Return the only choice that a stream of these deltas makes."""
    collector = CompletionCollector()
    for delta in deltas:
        collector.add({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, **choice}]})
    found: dict[str, Any] = collector.to_completion()["choices"][0]
    return found


def function(name: str | None = None, arguments: Any = None, **more: Any) -> dict[str, Any]:
    return {**more, "function": {"name": name, "arguments": arguments}}


def calls_of(*deltas: Any) -> list[tuple[str, str]]:
    calls = collected(*({"tool_calls": [delta]} for delta in deltas))["message"]["tool_calls"]
    assert len({call["id"] for call in calls}) == len(calls)
    return [(call["function"]["name"], call["function"]["arguments"]) for call in calls]


def test_tool_calls_are_repaired_as_in_a_translated_stream() -> None:
    assert calls_of(function("f", "{}"), function("g", "{}")) == [("f", "{}"), ("g", "{}")]
    same_index = (function("f", "{}", index=0, id="a"), function("g", "{}", index=0, id="b"))
    assert calls_of(*same_index) == [("f", "{}"), ("g", "{}")]
    assert calls_of(function("f", None, index=0), function(None, '{"a"', index=0), function(None, ": 1}", index=0)) == [
        ("f", '{"a": 1}')
    ]
    assert calls_of(function("f", {"a": 1}, index=-1)) == [("f", '{"a": 1}')]


def test_a_tool_call_without_a_name_is_kept() -> None:
    assert calls_of(function(None, "{}", index=0, id="a")) == [("", "{}")]


def test_the_index_of_a_tool_call_takes_no_memory() -> None:
    assert calls_of(function("f", "{}", index=10_000_000)) == [("f", "{}")]


def test_other_fields_and_types_of_tool_calls_are_kept() -> None:
    signed = function("f", "{}", index=0, id="a", extra_content={"google": {"thought_signature": "s"}})
    custom = {"index": 1, "id": "b", "type": "custom", "custom": {"name": "shell", "input": "l"}}
    more = {"index": 1, "custom": {"input": "s"}}
    assert collected({"tool_calls": [signed, custom]}, {"tool_calls": [more]})["message"]["tool_calls"] == [
        {
            "id": "a", "type": "function", "extra_content": signed["extra_content"],
            "function": {"name": "f", "arguments": "{}"},
        },
        {"id": "b", "type": "custom", "custom": {"name": "shell", "input": "ls"}},
    ]  # fmt: skip


def test_the_parts_of_a_function_call_are_joined() -> None:
    parts = ({"name": "f", "arguments": ""}, {"arguments": '{"a"'}, {"arguments": ": 1}"})
    message = collected(*({"function_call": part} for part in parts))["message"]
    assert message["function_call"] == {"name": "f", "arguments": '{"a": 1}'}
    assert "tool_calls" not in message


def test_the_parts_of_audio_are_joined() -> None:
    parts = ({"id": "x", "data": "AQI=", "transcript": "Hel"}, {"data": "Aw==", "transcript": "lo"}, {"expires_at": 5})
    message = collected(*({"audio": part} for part in parts))["message"]
    assert message["audio"] == {"id": "x", "data": "AQID", "transcript": "Hello", "expires_at": 5}


def test_only_texts_are_joined() -> None:
    delta = {"content": "a", "reasoning_content": "r", "refusal": "n", "service": "x", "annotations": [{"n": 1}]}
    assert collected(delta, delta)["message"] == {
        "role": "assistant", "content": "aa", "reasoning_content": "rr", "refusal": "nn", "service": "x",
        "annotations": [{"n": 1}, {"n": 1}],
    }  # fmt: skip


def test_content_in_parts_and_in_texts_is_kept() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    assert collected({"content": [thinking]}, {"content": "a"}, {"content": "b"})["message"]["content"] == [
        thinking,
        {"type": "text", "text": "ab"},
    ]


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": ["x"]},
        {"choices": [{"index": [0], "delta": {}}]},
        {"choices": [{"delta": "x"}]},
        {"choices": [{"text": 3}]},
        {"choices": [{"delta": {"content": 3}}]},
        {"choices": [{"delta": {"tool_calls": ["x"]}}]},
        {"choices": [{"delta": {"tool_calls": {"index": 0}}}]},
        {"choices": [{"delta": {"function_call": "x"}}]},
    ],
)
def test_a_delta_that_cannot_be_read_is_an_error_of_the_upstream(chunk: dict[str, Any]) -> None:
    with pytest.raises(UpstreamInvalidResponseError):
        CompletionCollector().add(chunk)


def test_the_time_grows_with_the_number_of_chunks() -> None:
    logprobs = {"content": [{"token": "x", "logprob": -0.1}], "refusal": None}
    started_at = time.process_time()
    choice = collected(*[{"content": "word " * 20}] * 50_000, logprobs=logprobs)
    assert len(choice["message"]["content"]) == 5_000_000
    assert len(choice["logprobs"]["content"]) == 50_000
    assert logprobs["content"] == [{"token": "x", "logprob": -0.1}]
    assert time.process_time() - started_at < 2


def test_an_empty_value_of_the_first_chunk_is_replaced() -> None:
    collector = CompletionCollector()
    collector.add({"id": "", "object": "", "model": "", "choices": [], "prompt_filter_results": []})
    collector.add(
        {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [{"delta": {"content": "a"}}]}
    )
    completion = collector.to_completion()
    assert (completion["id"], completion["object"], completion["model"]) == ("c", "chat.completion", "m")


def test_a_message_in_the_place_of_a_delta_is_collected() -> None:
    collector = CompletionCollector()
    collector.add(MESSAGE)
    assert collector.to_completion()["choices"][0]["message"]["content"] == "Hi"
