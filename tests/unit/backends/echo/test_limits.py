"""Tests of the echo model's token limits and of its cooperative tokenizer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, cast

import pytest

from openai_compat.backends.echo import limits
from openai_compat.backends.echo.backend import EchoBackend, EchoOptions
from openai_compat.backends.echo.limits import CooperativeTokenizer
from openai_compat.backends.resources import BackendResources
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import CallCancelledError, InvalidRequestError
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.tokens import split_tokens
from openai_compat.core.types import (
    CallContext,
    ChatDelta,
    ChatRequest,
    CompletionRequest,
    EmbeddingsRequest,
    TextDelta,
)

ECHO = EchoBackend(ModelConfig("m", "echo"), EchoOptions(), BackendResources(Settings(), http_client=cast(Any, None)))


def chat(*texts: str, **parameters: Any) -> list[ChatDelta]:
    request = ChatRequest("m", [{"role": "user", "content": text} for text in texts], parameters)
    return [delta for delta in ECHO.chat(request, CallContext("r")) if isinstance(delta, ChatDelta)]


def complete(*prompts: str | Sequence[int], **parameters: Any) -> list[TextDelta]:
    request = CompletionRequest("m", prompts, parameters)
    return [delta for delta in ECHO.complete(request, CallContext("r")) if isinstance(delta, TextDelta)]


def embed(*inputs: str | Sequence[int]) -> None:
    ECHO.embed(EmbeddingsRequest("m", inputs), CallContext("r"))


def words(count: int) -> str:
    return "a" + " a" * (count - 1)


class TestWindow:
    @pytest.mark.parametrize(
        ("texts", "tokens"),
        [
            ([words(128_001)], 128_001),
            ([words(64_000), words(64_001)], 128_001),
            (["x" * 4_000_000], 1_000_000),
        ],
    )
    def test_a_conversation_beyond_the_window_is_refused_with_openais_message(
        self, texts: list[str], tokens: int
    ) -> None:
        with pytest.raises(InvalidRequestError) as refusal:
            chat(*texts)
        assert (refusal.value.code, refusal.value.param) == ("context_length_exceeded", "messages")
        assert refusal.value.message == (
            f"This model's maximum context length is 128000 tokens. However, your messages resulted in {tokens} "
            "tokens. Please reduce the length of the messages."
        )

    def test_too_many_empty_messages_are_refused(self) -> None:
        with pytest.raises(InvalidRequestError) as refusal:
            chat(*[""] * 128_001)
        assert refusal.value.code == "context_length_exceeded"

    @pytest.mark.parametrize(
        ("prompts", "parameters", "tokens"),
        [
            ([words(128_001)], {}, 128_001),
            ([[7] * 128_001], {}, 128_001),
            (["b", words(128_000)], {}, 128_001),
            (["b"], {"suffix": words(128_000)}, 128_001),
            (["b", "b"], {"suffix": words(64_000)}, 128_002),
            (["x" * 4_000_000], {}, 1_000_000),
        ],
    )
    def test_prompts_beyond_the_window_are_refused_with_openais_message(
        self, prompts: list[Any], parameters: dict[str, Any], tokens: int
    ) -> None:
        with pytest.raises(InvalidRequestError) as refusal:
            complete(*prompts, max_tokens=5, **parameters)
        assert (refusal.value.code, refusal.value.param) == ("context_length_exceeded", "prompt")
        assert refusal.value.message == (
            f"This model's maximum context length is 128000 tokens, however you requested {tokens + 5} tokens "
            f"({tokens} in your prompt; 5 for the completion). Please reduce your prompt; or completion length."
        )

    @pytest.mark.parametrize("content", [words(8_193), [7] * 8_193, "x" * 98_305])
    def test_a_too_long_embedding_input_is_refused(self, content: Any) -> None:
        with pytest.raises(InvalidRequestError) as refusal:
            embed("x", content)
        assert (refusal.value.code, refusal.value.param) == ("context_length_exceeded", "input")
        assert refusal.value.message.startswith("This model's maximum context length is 8192 tokens, however you ")

    def test_too_many_tokens_in_all_embedding_inputs_are_refused(self) -> None:
        with pytest.raises(InvalidRequestError) as refusal:
            embed(*[[7] * 8_192] * 37)
        assert (refusal.value.code, refusal.value.param) == ("max_tokens_per_request", "input")
        assert refusal.value.message == "Requested 303104 tokens, max 300000 tokens per request"

    def test_texts_of_exactly_the_maximum_length_are_accepted(self) -> None:
        usage = chat(words(128_000))[-1].usage
        assert usage is not None
        assert usage.prompt_tokens == 128_000
        assert complete(words(64_000), "b", suffix=words(31_999), max_tokens=0)[-1].finish_reason == "length"
        embed(words(8_192), [7] * 8_192, "x" * 98_304)

    def test_too_many_prompts_are_refused(self) -> None:
        with pytest.raises(InvalidRequestError) as refusal:
            complete(*["x"] * 2049)
        assert (refusal.value.code, refusal.value.param) == ("array_above_max_length", "prompt")


class TestAnswers:
    @pytest.mark.parametrize(
        ("parameters", "tokens"),
        [
            ({}, 16_384),
            ({"max_tokens": 20_000}, 16_384),
            ({"max_completion_tokens": 16_000}, 16_000),
            ({"n": 128}, 512),
            ({"n": 2, "logprobs": True, "top_logprobs": 19}, 409),
            ({"response_format": {"type": "json_object"}}, 16_384),
        ],
    )
    def test_long_answers_end_at_the_limit(self, parameters: dict[str, Any], tokens: int) -> None:
        deltas = chat(words(20_000), **parameters)
        choices = parameters.get("n", 1)
        assert len(deltas) == (tokens + 1) * choices
        assert {delta.finish_reason for delta in deltas[-choices:]} == {"length"}
        assert deltas[-1].usage is not None
        assert deltas[-1].usage.completion_tokens == tokens * choices

    def test_long_tool_call_arguments_end_at_the_limit(self) -> None:
        schema = {"type": "array", "minItems": 1900, "items": {"type": "string", "minLength": 1000}}
        function = {"name": "f", "parameters": {"type": "object", "properties": {"x": schema}}}
        deltas = chat("Hi", tools=[{"type": "function", "function": function}], tool_choice="required")
        assert (len(deltas), deltas[-1].finish_reason) == (1 + 16_384 + 1, "length")

    def test_a_stop_string_applies_only_if_it_begins_before_the_limit(self) -> None:
        text = words(16_384) + " b c d" + " a" * 100
        for stop, finish, tokens in ((" a b c", "stop", 16_383), ("d", "length", 16_384)):
            deltas = chat(text, stop=stop)
            assert (deltas[-1].finish_reason, len(deltas) - 1) == (finish, tokens)

    def test_an_echoed_prompt_beyond_the_limit_is_refused(self) -> None:
        assert len(complete(words(30_000), echo=True, n=2, max_tokens=1)) == 2 * (30_000 + 1 + 1)
        for parameters in ({"n": 3}, {"n": 1, "logprobs": 2}):
            with pytest.raises(InvalidRequestError) as refusal:
                complete(words(30_000), echo=True, max_tokens=1, **parameters)
            assert (refusal.value.code, refusal.value.param) == ("context_length_exceeded", "prompt")

    def test_more_choices_than_tokens_are_refused(self) -> None:
        with pytest.raises(InvalidRequestError) as refusal:
            complete(*["x"] * 2048, n=33)
        assert refusal.value.param == "n"


class TestEmbeddings:
    def test_embeddings_that_are_too_large_together_are_refused(self) -> None:
        """A request of 8 kB became 25 MB of JSON and 200 MB of numbers."""
        request = EmbeddingsRequest("m", ["x"] * 2048, 1537)
        with pytest.raises(InvalidRequestError, match="at most 2046 inputs") as refusal:
            ECHO.embed(request, CallContext("r"))
        assert refusal.value.param == "input"

    def test_as_many_inputs_as_openai_allows_fit_at_1536_dimensions(self) -> None:
        result = ECHO.embed(EmbeddingsRequest("m", ["x"] * 2048, 1536), CallContext("r"))
        assert [len(vector) for vector in result.vectors] == [1536] * 2048

    def test_the_zeros_of_an_embedding_are_one_object(self) -> None:
        """Each number of a list that is an object of its own takes four times as much memory."""
        (vector,) = ECHO.embed(EmbeddingsRequest("m", ["some words"], 3072), CallContext("r")).vectors
        assert len(set(map(id, vector))) < 20


SNIPPETS = ["word", " ", "\n", "  ", "漢", "e\u0301", "!?", "x" * 30, "👩\u200d👩", "\t", ".", " 12", "\r\n", "🇩🇪🇫🇷"]


class TestCooperativeTokenizer:
    @pytest.mark.parametrize("chunk_chars", [40, 100, 300])
    def test_chunks_do_not_change_the_tokens(self, monkeypatch: pytest.MonkeyPatch, chunk_chars: int) -> None:
        monkeypatch.setattr(limits, "CHUNK_CHARS", chunk_chars)
        random_ = random.Random(chunk_chars)
        for _ in range(300):
            text = "".join(random_.choices(SNIPPETS, [9, 9, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1], k=60))
            tokens = CooperativeTokenizer(CancellationToken()).tokens(text)
            assert "".join(tokens) == text
            if not any(run.isspace() and len(run) > 3 for run in split_tokens(text)):
                assert tokens == split_tokens(text)

    @pytest.mark.parametrize("text", ["", " " * 50_000, "\n" * 50_000, "x" * 50_000, "e" + "\u0301" * 50_000])
    def test_texts_without_token_boundaries_are_tokenized(self, text: str) -> None:
        tokenizer = CooperativeTokenizer(CancellationToken())
        assert "".join(tokenizer.tokens(text)) == text
        assert tokenizer.first(text, 3) == tokenizer.tokens(text)[:3]

    def test_cancellation_stops_the_tokenizer(self) -> None:
        cancellation = CancellationToken()
        cancellation.cancel()
        with pytest.raises(CallCancelledError):
            CooperativeTokenizer(cancellation).tokens("word " * 10_000)

    def test_it_yields_every_few_thousand_characters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sleeps: list[float] = []
        monkeypatch.setattr("time.sleep", sleeps.append)
        tokenizer = CooperativeTokenizer(CancellationToken())
        for text in ("word " * 20_000, *["word " * 200] * 100):
            tokenizer.count(text)
        assert 20 <= len(sleeps) <= 40
