"""Chat and completion answers, made of whatever pieces a backend gives."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from openai_compat.backends.base import Backend, NoOptions, SupportsChat, SupportsCompletions
from openai_compat.backends.resources import BackendResources
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.tokens import TokenCounter
from openai_compat.core.types import (
    CallContext,
    ChatDelta,
    ChatRequest,
    CompletionRequest,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from openai_compat.services.chat import ChatAnswer, ChatService
from openai_compat.services.completions import CompletionAnswer, CompletionService

MESSAGES = [{"role": "user", "content": "hi"}]


class Scripted(Backend, SupportsChat, SupportsCompletions):
    """Gives the pieces it was made with."""

    def __init__(self, *pieces: Any) -> None:
        super().__init__(ModelConfig("m", "scripted"), NoOptions(), BackendResources(Settings(), None))  # type: ignore[arg-type]
        self.pieces = pieces

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta]:
        return iter(self.pieces)

    def complete(self, request: CompletionRequest, context: CallContext) -> Iterator[TextDelta]:
        return iter(self.pieces)


def chat(*pieces: ChatDelta) -> ChatAnswer:
    return ChatService(TokenCounter()).start(Scripted(*pieces), "m", {"messages": MESSAGES}, CallContext("r"))


def complete(*pieces: TextDelta) -> CompletionAnswer:
    return CompletionService(TokenCounter()).start(Scripted(*pieces), "m", {"prompt": "hi"}, CallContext("r"))


def call(**fields: Any) -> ChatDelta:
    return ChatDelta(tool_calls=(ToolCallDelta(0, **fields),))


def test_a_tool_call_without_an_id_is_given_one_streamed_or_not() -> None:
    """Without it the client cannot say whose result it sends."""
    pieces = (call(name="f"), call(arguments="{}"), ChatDelta(finish_reason="tool_calls"))
    (made,) = chat(*pieces).to_completion()["choices"][0]["message"]["tool_calls"]
    assert made == {"id": made["id"], "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chunks = [chunk for chunk in chat(*pieces).chunks(includes_usage=False) if isinstance(chunk, dict)]
    told = [piece for chunk in chunks for piece in chunk["choices"][0]["delta"].get("tool_calls", ())]
    for id_ in (made["id"], told[0]["id"]):
        assert id_.startswith("call_")
        assert len(id_) == len("call_") + 32


def test_a_tool_calls_own_id_is_kept() -> None:
    answer = chat(call(id="mine", name="f"), call(arguments="{}"), ChatDelta(finish_reason="tool_calls"))
    assert answer.to_completion()["choices"][0]["message"]["tool_calls"][0]["id"] == "mine"


def test_arguments_in_many_pieces_take_linear_time() -> None:
    pieces = [call(arguments="0123456789")] * 200_000
    started = time.monotonic()
    completion = chat(call(name="f"), *pieces, ChatDelta(finish_reason="tool_calls")).to_completion()
    assert time.monotonic() - started < 5
    (made,) = completion["choices"][0]["message"]["tool_calls"]
    assert len(made["function"]["arguments"]) == 2_000_000


@pytest.mark.parametrize("usage", [None, Usage(5, 7)])
def test_usage_is_counted_where_the_backend_counts_none(usage: Usage | None) -> None:
    expected = {"prompt_tokens": 5, "completion_tokens": 7} if usage else {"completion_tokens": 2}
    whole = chat(ChatDelta("Hello"), ChatDelta(" there", usage=usage), ChatDelta(finish_reason="stop")).to_completion()
    text = complete(TextDelta("Hello"), TextDelta(" there", usage=usage), TextDelta("", finish_reason="stop"))
    for completion in (whole, text.to_completion()):
        assert expected.items() <= completion["usage"].items()


def test_no_text_is_kept_for_a_count_that_the_backend_has_made() -> None:
    """A stream may go on for megabytes after a first usage."""
    chats = chat(ChatDelta("a"), ChatDelta(usage=Usage(1)), ChatDelta("b"), ChatDelta(finish_reason="stop"))
    texts = complete(TextDelta("a"), TextDelta("", usage=Usage(1)), TextDelta("b"), TextDelta("", finish_reason="stop"))
    for answer in (chats, texts):
        list(answer.chunks(includes_usage=False))
        assert answer.usage == Usage(1)
        assert answer._texts == []
