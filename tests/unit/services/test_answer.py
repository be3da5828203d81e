"""Chat and completion answers collected from the deltas of a backend."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from openai_compat.backends.base import Backend, NoOptions, SupportsChat, SupportsCompletions, SupportsEmbeddings
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.tokens import TokenCounter
from openai_compat.core.types import (
    CallContext,
    ChatDelta,
    ChatRequest,
    CompletionRequest,
    Embeddings,
    EmbeddingsRequest,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from openai_compat.services.chat import ChatAnswer, ChatService
from openai_compat.services.completions import CompletionAnswer, CompletionService
from openai_compat.services.embeddings import EmbeddingService
from openai_compat.services.token_decoder import TokenDecoder

MESSAGES = [{"role": "user", "content": "hi"}]


class Fragment(str):
    """Text that must not be concatenated, which would take quadratic time in a long answer."""

    def __add__(self, other: str) -> str:
        raise AssertionError("fragments are concatenated one by one")

    __radd__ = __add__


class Scripted(Backend, SupportsChat, SupportsCompletions):
    """Backend that yields the given deltas."""

    def __init__(self, *deltas: Any) -> None:
        super().__init__(ModelConfig("m", "scripted"), NoOptions(), BackendResources(Settings(), None))  # type: ignore[arg-type]
        self.deltas = deltas

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta]:
        return iter(self.deltas)

    def complete(self, request: CompletionRequest, context: CallContext) -> Iterator[TextDelta]:
        return iter(self.deltas)


class Embedding(Backend, SupportsEmbeddings):
    """A backend that returns the given vectors."""

    def __init__(self, *vectors: list[float]) -> None:
        super().__init__(ModelConfig("m", "scripted"), NoOptions(), BackendResources(Settings(), None))  # type: ignore[arg-type]
        self.vectors = vectors

    def embed(self, request: EmbeddingsRequest, context: CallContext) -> Embeddings:
        return Embeddings(self.vectors)


def chat(*deltas: ChatDelta) -> ChatAnswer:
    return ChatService(TokenCounter()).start(Scripted(*deltas), "m", {"messages": MESSAGES}, CallContext("r"))


def complete(*deltas: TextDelta) -> CompletionAnswer:
    return CompletionService(TokenCounter()).start(Scripted(*deltas), "m", {"prompt": "hi"}, CallContext("r"))


def call(**fields: Any) -> ChatDelta:
    return ChatDelta(tool_calls=(ToolCallDelta(0, **fields),))


def test_a_tool_call_without_an_id_gets_one_streamed_or_not() -> None:
    """The client needs the id to send the tool's result."""
    deltas = (call(name="f"), call(arguments="{}"), ChatDelta(finish_reason="tool_calls"))
    (made,) = chat(*deltas).to_completion()["choices"][0]["message"]["tool_calls"]
    assert made == {"id": made["id"], "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chunks = [chunk for chunk in chat(*deltas).chunks(includes_usage=False) if isinstance(chunk, dict)]
    streamed = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    for id_ in (made["id"], streamed[0]["id"]):
        assert id_.startswith("call_")
        assert len(id_) == len("call_") + 32


def test_the_id_of_a_tool_call_is_kept() -> None:
    answer = chat(call(id="mine", name="f"), call(arguments="{}"), ChatDelta(finish_reason="tool_calls"))
    assert answer.to_completion()["choices"][0]["message"]["tool_calls"][0]["id"] == "mine"


def test_the_arguments_of_a_tool_call_are_joined_once() -> None:
    deltas = [call(arguments=Fragment("0123456789"))] * 1000
    completion = chat(call(name="f"), *deltas, ChatDelta(finish_reason="tool_calls")).to_completion()
    (made,) = completion["choices"][0]["message"]["tool_calls"]
    assert made["function"]["arguments"] == "0123456789" * 1000


def test_the_text_of_an_answer_is_joined_once() -> None:
    deltas = [ChatDelta(Fragment("0123456789"))] * 1000
    completion = chat(*deltas, ChatDelta(finish_reason="stop")).to_completion()
    assert completion["choices"][0]["message"]["content"] == "0123456789" * 1000


@pytest.mark.parametrize("usage", [None, Usage(5, 7)])
def test_usage_is_counted_if_the_backend_reports_none(usage: Usage | None) -> None:
    expected = {"prompt_tokens": 5, "completion_tokens": 7} if usage else {"completion_tokens": 2}
    answer = chat(ChatDelta("Hello"), ChatDelta(" there", usage=usage), ChatDelta(finish_reason="stop")).to_completion()
    text = complete(TextDelta("Hello"), TextDelta(" there", usage=usage), TextDelta("", finish_reason="stop"))
    for completion in (answer, text.to_completion()):
        assert expected.items() <= completion["usage"].items()


def test_counted_usage_has_definitions_of_tools_reasoning_and_refusals() -> None:
    tools = [
        {"type": "function", "function": {"name": "f", "description": "word " * 100}},
        {"type": "custom", "custom": {"name": "g", "description": "word " * 100}},
    ]
    deltas = [ChatDelta(reasoning="word " * 50), ChatDelta(refusal="word " * 25), ChatDelta(finish_reason="stop")]
    request = ChatRequest("m", MESSAGES, {"tools": tools})
    usage = ChatAnswer(request, iter(deltas), TokenCounter(), is_legacy=False).to_completion()["usage"]
    plain = chat(*deltas).to_completion()["usage"]
    assert usage["prompt_tokens"] > plain["prompt_tokens"] + 200
    assert 75 <= usage["completion_tokens"] < 80


def test_text_is_not_kept_after_the_backend_has_reported_usage() -> None:
    """A stream may continue for megabytes after a first usage."""
    chats = chat(ChatDelta("a"), ChatDelta(usage=Usage(1)), ChatDelta("b"), ChatDelta(finish_reason="stop"))
    texts = complete(TextDelta("a"), TextDelta("", usage=Usage(1)), TextDelta("b"), TextDelta("", finish_reason="stop"))
    for answer in (chats, texts):
        list(answer.chunks(includes_usage=False))
        assert answer.usage == Usage(1)
        assert not answer._text


def deltas_of(answer: ChatAnswer) -> list[dict[str, Any]]:
    chunks = [chunk for chunk in answer.chunks(includes_usage=False) if isinstance(chunk, dict)]
    return [chunk["choices"][0]["delta"] for chunk in chunks]


def test_custom_tool_calls_keep_their_name_and_input() -> None:
    deltas = (
        call(id="a", name="grep", type="custom"),
        call(arguments="abc", type="custom"),
        ChatDelta(finish_reason="tool_calls"),
    )
    (made,) = chat(*deltas).to_completion()["choices"][0]["message"]["tool_calls"]
    assert made == {"id": "a", "type": "custom", "custom": {"name": "grep", "input": "abc"}}
    assert deltas_of(chat(*deltas))[1:3] == [
        {"tool_calls": [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "grep", "input": ""}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": "abc"}}]},
    ]


def test_audio_is_kept_and_its_parts_are_joined() -> None:
    parts = [{"id": "x", "transcript": "Hel"}, {"data": "AQI="}, {"data": "Aw==", "transcript": "lo", "expires_at": 5}]
    deltas = [*(ChatDelta(audio=part) for part in parts), ChatDelta(finish_reason="stop")]
    message = chat(*deltas).to_completion()["choices"][0]["message"]
    assert message["content"] is None
    assert message["audio"] == {"id": "x", "data": "AQID", "transcript": "Hello", "expires_at": 5}
    assert [delta["audio"] for delta in deltas_of(chat(*deltas)) if "audio" in delta] == parts
    with pytest.raises(UpstreamInvalidResponseError):
        chat(ChatDelta(audio={"data": "A"}), ChatDelta(audio={"data": "B"}), deltas[-1]).to_completion()


def test_a_client_of_functions_gets_the_first_call_only() -> None:
    """Clients join the arguments of all function calls, and `parallel_tool_calls: false` is not always honoured."""
    calls = (ToolCallDelta(0, "{}", "a", "f"), ToolCallDelta(1, "{}", "b", "g"))
    backend = Scripted(ChatDelta(tool_calls=calls), ChatDelta(finish_reason="tool_calls"))
    backend.supported_chat_parameters = frozenset({"tools", "parallel_tool_calls"})  # type: ignore[misc]
    payload = {"messages": MESSAGES, "functions": [{"name": "f"}]}
    answer = ChatService(TokenCounter()).start(backend, "m", payload, CallContext("r"))
    assert [delta["function_call"] for delta in deltas_of(answer) if "function_call" in delta] == [
        {"name": "f", "arguments": ""},
        {"arguments": "{}"},
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_log_probabilities_that_are_not_finite_become_the_lowest_one(value: float) -> None:
    logprobs = (TokenLogprob("a", value, (("b", value), ("c", -1.0))),)
    completion = chat(ChatDelta("a", logprobs=logprobs), ChatDelta(finish_reason="stop")).to_completion()
    (token,) = completion["choices"][0]["logprobs"]["content"]
    assert [token["logprob"], *(other["logprob"] for other in token["top_logprobs"])] == [-9999.0, -9999.0, -1.0]
    text = complete(TextDelta("a", logprobs=logprobs), TextDelta(finish_reason="stop")).to_completion()
    legacy = text["choices"][0]["logprobs"]
    assert (legacy["token_logprobs"], legacy["top_logprobs"]) == ([-9999.0], [{"b": -9999.0, "c": -1.0}])


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_embeddings_that_are_not_finite_are_no_answer(value: float, encoding_format: str) -> None:
    payload = {"input": ["a", "b"], "encoding_format": encoding_format}
    service = EmbeddingService(TokenCounter(), TokenDecoder())
    with pytest.raises(UpstreamInvalidResponseError):
        service.create(Embedding([0.5, 1.0], [0.5, value]), "m", payload, CallContext("r"))
    service.create(Embedding([0.5, 1.0], [1e308, 1e308]), "m", payload, CallContext("r"))
