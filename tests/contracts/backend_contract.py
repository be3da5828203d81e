"""The test suite that every backend passes.

A kind inherits the class of each of its capabilities and provides the fixtures:

    class TestEchoChat(ChatContract):
        echoes = True

        @pytest.fixture
        def backend(self): ...

        @pytest.fixture
        def slow_backend(self): ...

Tests of a supported parameter (`n`, `stop`, `tools`, ...) are skipped for backends that do not declare it.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from openai_compat.backends.base import (
    CHAT_PARAMETERS,
    COMPLETION_PARAMETERS,
    Backend,
    SupportsChat,
    SupportsCompletions,
    SupportsEmbeddings,
)
from openai_compat.core.errors import CallCancelledError, RequestError
from openai_compat.core.streams import HEARTBEAT, Heartbeat, close_stream
from openai_compat.core.types import (
    CallContext,
    ChatDelta,
    ChatRequest,
    CompletionRequest,
    EmbeddingsRequest,
    TextDelta,
    Usage,
)
from tests.support.waiting import wait_until

UNICODE = "Zoë läuft 🏃🏽‍♀️ nach 東京 — e\u0301 नमस्ते\tline\nnext"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class BackendContract:
    """The base of the three suites. A kind overrides the attributes that do not apply to it."""

    model: ClassVar[str] = "contract-model"
    """The model's name in the requests."""
    echoes: ClassVar[bool] = False
    """True if the backend, or the fake upstream behind it, answers a text with the same text."""
    is_deterministic: ClassVar[bool] = True
    """True if equal requests get equal answers."""
    has_usage: ClassVar[bool] = True
    """True if the backend reports token usage."""
    refused: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = ()
    """Parameters with values that this kind rejects, each with the `param` of the error."""

    @pytest.fixture
    def backend(self) -> Any:
        """Return the backend under test."""
        raise NotImplementedError

    @pytest.fixture
    def slow_backend(self) -> Any:
        """Return a backend that needs at least half a minute for its first delta."""
        pytest.skip("this kind has no slow backend to test with")

    def running_work(self, backend: Any) -> int:
        """Return the number of calls that the backend (or the fake upstream behind it) is working on."""
        return 0

    def assert_idle(self, backend: Any) -> None:
        wait_until(lambda: self.running_work(backend) == 0, "the backend has ended all work")

    def begin(self, backend: Any, text: str, context: CallContext | None = None, **parameters: Any) -> Iterator[Any]:
        """Start a call of the suite's kind."""
        raise NotImplementedError


class StreamContract(BackendContract):
    """The tests of chat and completions, which both return a stream of deltas."""

    known_parameters: ClassVar[frozenset[str]]

    def supported_parameters(self, backend: Any) -> frozenset[str]:
        raise NotImplementedError

    def needs(self, backend: Any, *parameters: str) -> None:
        """Skip the test unless the backend supports the parameters."""
        missing = set(parameters) - self.supported_parameters(backend)
        if missing:
            pytest.skip(f"this kind does not support {', '.join(sorted(missing))}")

    def answer(self, backend: Any, text: str, **parameters: Any) -> str:
        """Return the text of the first choice."""
        return text_of(collect(self.begin(backend, text, **parameters)), 0)

    def test_supported_parameters_are_known(self, backend: Any) -> None:
        assert self.supported_parameters(backend) <= self.known_parameters

    def test_answers_in_text(self, backend: Any) -> None:
        answer = self.answer(backend, "Hello there")
        assert answer == "Hello there" if self.echoes else answer

    def test_each_choice_ends_with_its_finish_reason(self, backend: Any) -> None:
        assert_well_formed(collect(self.begin(backend, "Hello there")), choices=1)

    def test_usage_is_reported_or_missing(self, backend: Any) -> None:
        usages = [delta.usage for delta in collect(self.begin(backend, "Hello there")) if delta.usage]
        assert bool(usages) == self.has_usage
        if usages:
            assert usages[-1].prompt_tokens > 0
            assert usages[-1].completion_tokens > 0

    def test_unicode_stays_intact(self, backend: Any) -> None:
        if not self.echoes:
            pytest.skip("this kind does not echo")
        deltas = collect(self.begin(backend, UNICODE))
        assert text_of(deltas, 0) == UNICODE
        for delta in deltas:
            (text_in(delta) or "").encode()  # fails for half a surrogate pair

    def test_equal_requests_get_equal_answers(self, backend: Any) -> None:
        if not self.is_deterministic:
            pytest.skip("this kind is not deterministic")
        assert self.answer(backend, "Hello there") == self.answer(backend, "Hello there")

    def test_twenty_callers_get_their_own_answers(self, backend: Any) -> None:
        if not self.echoes:
            pytest.skip("this kind does not echo")
        texts = [f"I am caller {number} of twenty" for number in range(20)]
        with ThreadPoolExecutor(20) as pool:
            assert list(pool.map(lambda text: self.answer(backend, text), texts)) == texts

    def test_closing_before_the_first_delta_ends_the_work(self, slow_backend: Any) -> None:
        close_stream(self.begin(slow_backend, "Hello there"))
        self.assert_idle(slow_backend)

    def test_closing_after_the_first_delta_ends_the_work(self, backend: Any) -> None:
        stream = self.begin(backend, "Hello there, this is a longer text")
        next(stream)
        close_stream(stream)
        assert list(stream) == []
        self.assert_idle(backend)

    def test_a_call_that_is_cancelled_before_it_starts(self, backend: Any) -> None:
        context = CallContext("contract")
        context.cancellation.cancel()
        with pytest.raises(CallCancelledError):
            collect(self.begin(backend, "Hello there", context))
        self.assert_idle(backend)

    def test_a_call_that_is_cancelled_while_it_waits(self, slow_backend: Any) -> None:
        context = CallContext("contract")
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(lambda: collect(self.begin(slow_backend, "Hello there", context)))
            with pytest.raises(TimeoutError):
                call.result(timeout=0.1)
            context.cancellation.cancel()
            with pytest.raises(CallCancelledError):
                call.result(timeout=20)
        self.assert_idle(slow_backend)

    def test_an_idle_gap_yields_heartbeats(self, slow_backend: Any) -> None:
        context = CallContext("contract", heartbeat_interval=0.05)
        stream = self.begin(slow_backend, "Hello there", context)
        started = time.monotonic()
        assert [next(stream), next(stream)] == [HEARTBEAT, HEARTBEAT]
        assert time.monotonic() - started >= 0.05
        close_stream(stream)
        self.assert_idle(slow_backend)

    def test_invalid_values_are_rejected_before_the_first_delta(self, backend: Any) -> None:
        for parameters, param in self.refused:
            with pytest.raises(RequestError) as rejected:
                self.begin(backend, "Hello there", **parameters)
            assert rejected.value.param == param, parameters

    def test_n_choices(self, backend: Any) -> None:
        self.needs(backend, "n")
        deltas = collect(self.begin(backend, "Hello there", n=3))
        assert_well_formed(deltas, choices=3)
        if self.echoes:
            assert [text_of(deltas, index) for index in range(3)] == ["Hello there"] * 3

    @pytest.mark.parametrize("stop", ["three", ["four", "three"]])
    def test_the_answer_ends_before_a_stop_string(self, backend: Any, stop: Any) -> None:
        self.needs(backend, "stop")
        deltas = collect(self.begin(backend, "one two three four", stop=stop))
        assert "three" not in text_of(deltas, 0)
        if self.echoes:
            assert text_of(deltas, 0) == "one two "
            assert finish_reasons(deltas) == {0: "stop"}

    def test_max_tokens_limit_the_answer(self, backend: Any) -> None:
        self.needs(backend, "max_tokens")
        deltas = collect(self.begin(backend, "one two three four five six seven eight", max_tokens=2))
        assert finish_reasons(deltas) == {0: "length"}
        if self.echoes:
            assert "one two three four five six seven eight".startswith(text_of(deltas, 0))
        if self.has_usage:
            assert last_usage(deltas).completion_tokens == 2


class ChatContract(StreamContract):
    """The tests of backends that are `SupportsChat`."""

    known_parameters = CHAT_PARAMETERS

    def supported_parameters(self, backend: SupportsChat) -> frozenset[str]:
        return backend.supported_chat_parameters

    def begin(
        self, backend: SupportsChat, text: str, context: CallContext | None = None, **parameters: Any
    ) -> Iterator[ChatDelta | Heartbeat]:
        request = ChatRequest(self.model, [{"role": "user", "content": text}], parameters, is_streamed=True)
        return backend.chat(request, context or CallContext("contract"))

    def test_is_a_chat_backend(self, backend: Any) -> None:
        assert isinstance(backend, Backend)
        assert isinstance(backend, SupportsChat)

    def test_content_as_a_list_of_parts(self, backend: SupportsChat) -> None:
        parts = [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there"}]
        request = ChatRequest(self.model, [{"role": "user", "content": parts}])
        answer = text_of(collect(backend.chat(request, CallContext("contract"))), 0)
        assert answer.split() == ["Hello", "there"] if self.echoes else answer

    def test_a_conversation(self, backend: SupportsChat) -> None:
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "Bye", "name": "zoe"},
        ]
        deltas = collect(backend.chat(ChatRequest(self.model, messages), CallContext("contract")))
        assert_well_formed(deltas, choices=1)
        assert not self.echoes or text_of(deltas, 0) == "Bye"

    def test_max_completion_tokens_limit_the_answer(self, backend: Any) -> None:
        self.needs(backend, "max_completion_tokens")
        deltas = collect(self.begin(backend, "one two three four five six", max_completion_tokens=2))
        assert finish_reasons(deltas) == {0: "length"}

    def test_logprobs_belong_to_the_tokens(self, backend: Any) -> None:
        self.needs(backend, "logprobs", "top_logprobs")
        deltas = collect(self.begin(backend, "Hello there", logprobs=True, top_logprobs=3))
        assert_logprobs(deltas, top=3)

    def test_a_tool_call(self, backend: Any) -> None:
        self.needs(backend, "tools")
        deltas = collect(self.begin(backend, "What is the weather in Paris?", tools=[TOOL], tool_choice="required"))
        assert_well_formed(deltas, choices=1)
        assert finish_reasons(deltas) == {0: "tool_calls"}
        assert text_of(deltas, 0) == ""
        calls = [call for delta in deltas for call in delta.tool_calls]
        assert {call.index for call in calls} == {0}
        assert calls[0].id
        assert calls[0].name == "get_weather"
        assert [call for call in calls[1:] if call.id or call.name] == []
        assert isinstance(json.loads("".join(call.arguments for call in calls))["city"], str)

    def test_an_answer_as_a_json_object(self, backend: Any) -> None:
        self.needs(backend, "response_format")
        answer = self.answer(backend, 'Say "hi" in JSON', response_format={"type": "json_object"})
        assert isinstance(json.loads(answer), dict)

    def test_an_answer_that_follows_a_json_schema(self, backend: Any) -> None:
        self.needs(backend, "response_format")
        count = {"type": "integer", "maximum": 100, "minimum": 0}
        schema = {
            "type": "object",
            "properties": {"count": count},
            "required": ["count"],
            "additionalProperties": False,
        }
        format_ = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
        assert isinstance(json.loads(self.answer(backend, "How many?", response_format=format_))["count"], int)


class CompletionsContract(StreamContract):
    """The tests of backends that are `SupportsCompletions`."""

    known_parameters = COMPLETION_PARAMETERS

    def supported_parameters(self, backend: SupportsCompletions) -> frozenset[str]:
        return backend.supported_completion_parameters

    def begin(
        self, backend: SupportsCompletions, text: str, context: CallContext | None = None, **parameters: Any
    ) -> Iterator[TextDelta | Heartbeat]:
        parameters = {"max_tokens": 100, **parameters}
        request = CompletionRequest(self.model, [text], parameters, is_streamed=True)
        return backend.complete(request, context or CallContext("contract"))

    def test_is_a_completions_backend(self, backend: Any) -> None:
        assert isinstance(backend, Backend)
        assert isinstance(backend, SupportsCompletions)

    def test_choices_are_in_the_order_of_the_prompts(self, backend: SupportsCompletions) -> None:
        prompts = ["first prompt", "second prompt", "third prompt"]
        deltas = collect(backend.complete(CompletionRequest(self.model, prompts), CallContext("contract")))
        assert_well_formed(deltas, choices=3)
        if self.echoes:
            assert [text_of(deltas, index) for index in range(3)] == prompts

    def test_choices_are_numbered_prompt_by_prompt(self, backend: SupportsCompletions) -> None:
        self.needs(backend, "n")
        request = CompletionRequest(self.model, ["first prompt", "second prompt"], {"n": 2})
        deltas = collect(backend.complete(request, CallContext("contract")))
        assert_well_formed(deltas, choices=4)
        if self.echoes:
            texts = [text_of(deltas, index) for index in range(4)]
            assert texts == ["first prompt", "first prompt", "second prompt", "second prompt"]

    def test_echo_starts_the_text_with_the_prompt(self, backend: Any) -> None:
        self.needs(backend, "echo")
        assert self.answer(backend, "Once upon", echo=True).startswith("Once upon")

    def test_logprobs_belong_to_the_tokens(self, backend: Any) -> None:
        self.needs(backend, "logprobs")
        assert_logprobs(collect(self.begin(backend, "Hello there", logprobs=2)), top=2)


class EmbeddingsContract(BackendContract):
    """The tests of backends that are `SupportsEmbeddings`."""

    dimensions: ClassVar[Sequence[int]] = ()
    """Values of `dimensions` that the backend supports."""
    is_unit_length: ClassVar[bool] = True

    def embed(self, backend: SupportsEmbeddings, *inputs: Any, dimensions: int | None = None) -> Any:
        return backend.embed(EmbeddingsRequest(self.model, inputs, dimensions), CallContext("contract"))

    def test_is_an_embeddings_backend(self, backend: Any) -> None:
        assert isinstance(backend, Backend)
        assert isinstance(backend, SupportsEmbeddings)

    def test_one_vector_for_each_input_in_order(self, backend: SupportsEmbeddings) -> None:
        texts = ["the cat", "a quantum computer", "the cat", UNICODE]
        vectors = self.embed(backend, *texts).vectors
        assert [list(vector) for vector in vectors] == [
            pytest.approx(list(self.embed(backend, text).vectors[0]), abs=1e-5) for text in texts
        ]
        assert list(vectors[0]) != list(vectors[1])

    def test_vectors_have_one_length(self, backend: SupportsEmbeddings) -> None:
        vectors = self.embed(backend, "the cat", "x", UNICODE).vectors
        assert len({len(vector) for vector in vectors}) == 1
        if self.is_unit_length:
            assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1.0] * 3, abs=1e-3)

    def test_dimensions(self, backend: SupportsEmbeddings) -> None:
        if not self.dimensions:
            pytest.skip("this kind's dimensions are fixed")
        for dimensions in self.dimensions:
            (vector,) = self.embed(backend, "the cat sat on the mat", dimensions=dimensions).vectors
            assert len(vector) == dimensions
            assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-3)

    def test_usage_counts_the_inputs(self, backend: SupportsEmbeddings) -> None:
        usage = self.embed(backend, "the cat", "sat").usage
        assert (usage is not None) == self.has_usage
        if usage is not None:
            assert usage.prompt_tokens > 0
            assert usage.completion_tokens == 0

    def test_invalid_values_are_rejected(self, backend: SupportsEmbeddings) -> None:
        for parameters, param in self.refused:
            with pytest.raises(RequestError) as rejected:
                self.embed(backend, *parameters.get("input", ["text"]), dimensions=parameters.get("dimensions"))
            assert rejected.value.param == param, parameters

    def test_twenty_callers_get_their_own_vectors(self, backend: SupportsEmbeddings) -> None:
        texts = [f"caller {number}" for number in range(20)]
        alone = [list(self.embed(backend, text).vectors[0]) for text in texts]
        with ThreadPoolExecutor(20) as pool:
            together = list(pool.map(lambda text: list(self.embed(backend, text).vectors[0]), texts))
        assert together == [pytest.approx(vector, abs=1e-5) for vector in alone]

    def test_a_call_that_is_cancelled_before_it_starts(self, backend: SupportsEmbeddings) -> None:
        context = CallContext("contract")
        context.cancellation.cancel()
        with pytest.raises(CallCancelledError):
            backend.embed(EmbeddingsRequest(self.model, ["the cat"]), context)


def collect(stream: Iterator[Any]) -> list[Any]:
    """Return the stream's deltas without the heartbeats."""
    return [delta for delta in stream if delta is not HEARTBEAT]


def text_in(delta: ChatDelta | TextDelta) -> str | None:
    return delta.content if isinstance(delta, ChatDelta) else delta.text


def text_of(deltas: Sequence[Any], index: int) -> str:
    """Return the text of one choice."""
    return "".join(text_in(delta) or "" for delta in deltas if delta.index == index)


def finish_reasons(deltas: Sequence[Any]) -> dict[int, str]:
    return {delta.index: delta.finish_reason for delta in deltas if delta.finish_reason}


def last_usage(deltas: Sequence[Any]) -> Usage:
    usages: list[Usage] = [delta.usage for delta in deltas if delta.usage]
    assert usages, "no delta has a usage"
    return usages[-1]


def assert_well_formed(deltas: Sequence[Any], choices: int) -> None:
    """Check that each choice from 0 on is present, ends once and has no content after its end, with no empty delta."""
    by_index = defaultdict(list)
    for delta in deltas:
        assert has_content(delta) or delta.finish_reason or delta.usage, f"an empty delta: {delta}"
        by_index[delta.index].append(delta)
    assert sorted(by_index) == list(range(choices))
    for of_choice in by_index.values():
        ends = [position for position, delta in enumerate(of_choice) if delta.finish_reason]
        assert len(ends) == 1, f"{len(ends)} finish reasons"
        assert not any(has_content(delta) for delta in of_choice[ends[0] + 1 :])


def has_content(delta: ChatDelta | TextDelta) -> bool:
    if isinstance(delta, TextDelta):
        return bool(delta.text or delta.logprobs)
    texts = delta.content or delta.refusal or delta.reasoning
    return bool(texts or delta.tool_calls or delta.logprobs or delta.reasoning_details)


def assert_logprobs(deltas: Sequence[Any], top: int) -> None:
    """Check that the tokens of the logprobs form the text, and that each has `top` alternatives in falling order."""
    logprobs = [logprob for delta in deltas for logprob in delta.logprobs]
    assert "".join(logprob.token for logprob in logprobs) == text_of(deltas, 0)
    for logprob in logprobs:
        assert logprob.logprob <= 0
        values = [value for _, value in logprob.top]
        assert len(values) == top
        assert values == sorted(values, reverse=True)
