"""What a user of the echo model sees, beyond the contract that all backends keep."""

from __future__ import annotations

import json
import math
import time
from typing import Any, cast

import jsonschema
import pytest

from openai_compat.backends.echo.backend import EchoBackend, EchoOptions
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import InvalidRequestError, UnsupportedParameterError
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.streams import HEARTBEAT
from openai_compat.core.types import (
    CallContext,
    ChatDelta,
    ChatRequest,
    CompletionRequest,
    EmbeddingsRequest,
    TextDelta,
    ToolCallDelta,
    Usage,
)


def make_echo(**options: Any) -> EchoBackend:
    resources = BackendResources(Settings(), http_client=cast(Any, None))
    return EchoBackend(ModelConfig("mock-gpt-model", "echo"), EchoOptions(**options), resources)


def chat(messages: str | list[dict[str, Any]], **parameters: Any) -> list[ChatDelta]:
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    request = ChatRequest("mock-gpt-model", messages, parameters)
    return [delta for delta in make_echo().chat(request, CallContext("r")) if isinstance(delta, ChatDelta)]


def content(messages: str | list[dict[str, Any]], **parameters: Any) -> str:
    return "".join(delta.content or "" for delta in chat(messages, **parameters))


def complete(*prompts: Any, **parameters: Any) -> list[TextDelta]:
    request = CompletionRequest("mock-gpt-model", prompts, parameters)
    return [delta for delta in make_echo().complete(request, CallContext("r")) if isinstance(delta, TextDelta)]


def text(*prompts: Any, **parameters: Any) -> str:
    return "".join(delta.text for delta in complete(*prompts, **parameters))


def embed(*inputs: Any, dimensions: int | None = None) -> list[list[float]]:
    request = EmbeddingsRequest("mock-gpt-model", inputs, dimensions)
    return [list(vector) for vector in make_echo().embed(request, CallContext("r")).vectors]


def tool(name: str, description: str = "", **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TIME = tool("get_time", "The time of day")
WEATHER = tool("get_weather", "Forecast for a city", city={"type": "string"})


def called(deltas: list[ChatDelta]) -> tuple[str | None, Any]:
    """The name and the arguments of the one call."""
    pieces = [piece for delta in deltas for piece in delta.tool_calls]
    return pieces[0].name, json.loads("".join(piece.arguments for piece in pieces))


class TestChat:
    def test_one_delta_for_each_token_and_one_for_the_end(self) -> None:
        assert chat("Hello there, friend") == [
            ChatDelta("Hello"),
            ChatDelta(" there"),
            ChatDelta(","),
            ChatDelta(" friend"),
            ChatDelta(finish_reason="stop", usage=Usage(4, 4)),
        ]

    def test_the_last_thing_the_user_said(self) -> None:
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": "first"},
            {"role": "user", "content": "second"},
            {"role": "assistant", "content": "third", "tool_calls": None},
            {"role": "system", "content": "fourth"},
        ]
        assert content(messages) == "second"
        assert content(messages[2:]) == "fourth"
        assert chat(messages)[-1].usage == Usage(4, 1)

    def test_parts_that_are_not_text(self) -> None:
        parts = [
            {"type": "text", "text": "Look: "},
            {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            {"type": "file", "file": {"file_id": "f"}},
        ]
        assert content([{"role": "user", "content": parts}]) == "Look: [image][audio][file]"

    def test_nothing_said_nothing_answered(self) -> None:
        assert chat("") == [ChatDelta(finish_reason="stop", usage=Usage(0, 0))]

    def test_choices_take_turns(self) -> None:
        deltas = chat("a b", n=2)
        assert [(delta.index, delta.content) for delta in deltas] == [
            *[(0, "a"), (1, "a"), (0, " b"), (1, " b")],
            *[(0, None), (1, None)],
        ]
        assert [delta.usage for delta in deltas] == [None] * 5 + [Usage(2, 4)]

    def test_a_stop_string_may_span_tokens(self) -> None:
        assert content("one two three", stop="o th") == "one tw"
        assert content("one two three", stop=["three", "two"]) == "one "
        assert content("one two three", stop="four") == "one two three"

    @pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
    def test_a_limit_cuts_only_what_is_longer(self, limit: str) -> None:
        deltas = chat("one two three", **{limit: 2})
        assert deltas[-1] == ChatDelta(finish_reason="length", usage=Usage(3, 2))
        assert chat("one two three", **{limit: 3})[-1].finish_reason == "stop"

    def test_the_newer_limit_counts(self) -> None:
        assert content("one two three", max_tokens=1, max_completion_tokens=2) == "one two"

    def test_logprobs(self) -> None:
        (delta, _) = chat("Hello", logprobs=True)
        assert [(logprob.token, logprob.top) for logprob in delta.logprobs] == [("Hello", ())]
        for top in (1, 20):
            (delta, _) = chat(" the", logprobs=True, top_logprobs=top)
            (logprob,) = delta.logprobs
            assert logprob.top[0] == (" the", logprob.logprob)
            assert len({token for token, _ in logprob.top}) == top
            assert sum(math.exp(value) for _, value in logprob.top) < 1
        assert chat("Hello", logprobs=False)[0].logprobs == ()

    def test_a_json_object(self) -> None:
        assert content('Zoë says "hi"', response_format={"type": "json_object"}) == r'{"echo":"Zoë says \"hi\""}'
        assert content("Hi", response_format={"type": "text"}) == "Hi"
        assert content("Hi", response_format={"type": "json_schema", "json_schema": {"name": "x"}}) == '{"echo":"Hi"}'

    def test_an_instance_of_the_schema(self) -> None:
        schema = {
            "type": "object",
            "properties": {"answer": {"type": "string"}, "certainty": {"type": "number", "minimum": 0, "maximum": 1}},
            "required": ["answer", "certainty"],
            "additionalProperties": False,
        }
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        answer = json.loads(content("Why?", response_format=wanted))
        jsonschema.validate(answer, schema)
        assert answer["answer"] == "Why?"


class TestTools:
    def test_arguments_come_in_fragments_after_id_and_name(self) -> None:
        deltas = chat("Forecast for Paris", tools=[WEATHER])
        first = deltas[0].tool_calls[0]
        assert (first.index, first.name, first.arguments) == (0, "get_weather", "")
        assert first.id is not None
        assert first.id.startswith("call_")
        fragments = [delta.tool_calls for delta in deltas[1:-1]]
        assert len(fragments) > 3
        assert all(pieces == (ToolCallDelta(0, pieces[0].arguments),) for pieces in fragments)
        assert deltas[-1].finish_reason == "tool_calls"
        assert deltas[-1].usage == Usage(3, len(fragments))
        assert called(deltas) == ("get_weather", {"city": "Forecast for Paris"})

    def test_the_tool_that_shares_most_words(self) -> None:
        assert called(chat("What is the weather?", tools=[TIME, WEATHER]))[0] == "get_weather"
        assert called(chat("A city forecast", tools=[TIME, WEATHER]))[0] == "get_weather"
        assert called(chat("Hello", tools=[TIME, WEATHER]))[0] == "get_time"

    def test_a_tools_result_is_answered_in_text(self) -> None:
        call = {"id": "c", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": "What time is it?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "Five o'clock"},
        ]
        assert content(messages, tools=[TIME]) == "Five o'clock"
        assert called(chat(messages, tools=[TIME], tool_choice="required"))[0] == "get_time"

    def test_each_turn_has_its_own_call_id(self) -> None:
        once = [{"role": "user", "content": "Hi"}]
        ids = {chat(messages, tools=[TIME])[0].tool_calls[0].id for messages in (once, once * 2, once)}
        assert len(ids) == 2

    @pytest.mark.parametrize(
        ("choice", "name"),
        [
            ("auto", "get_time"),
            ("required", "get_time"),
            ({"type": "function", "function": {"name": "get_weather"}}, "get_weather"),
            (
                {
                    "type": "allowed_tools",
                    "allowed_tools": {
                        "mode": "auto",
                        "tools": [{"type": "function", "function": {"name": "get_weather"}}],
                    },
                },
                "get_weather",
            ),
        ],
    )
    def test_tool_choice(self, choice: Any, name: str) -> None:
        assert called(chat("Hi", tools=[TIME, WEATHER], tool_choice=choice))[0] == name

    def test_none_never_calls(self) -> None:
        assert content("What time is it?", tools=[TIME], tool_choice="none") == "What time is it?"

    @pytest.mark.parametrize(
        "choice",
        [
            "sometimes",
            {},
            {"type": "function", "function": {"name": "get_rich"}},
            {"type": "function", "function": "get_time"},
            {"type": "allowed_tools", "allowed_tools": 3},
            {"type": "custom", "custom": {"name": "get_time"}},
        ],
    )
    def test_a_choice_that_is_none(self, choice: Any) -> None:
        with pytest.raises(InvalidRequestError) as refusal:
            chat("Hi", tools=[TIME], tool_choice=choice)
        assert refusal.value.param == "tool_choice"

    def test_a_tool_without_parameters(self) -> None:
        assert called(chat("Hi", tools=[{"type": "function", "function": {"name": "f", "parameters": None}}])) == (
            "f",
            {},
        )

    def test_a_limit_cuts_the_arguments(self) -> None:
        deltas = chat("Forecast", tools=[WEATHER], max_tokens=2)
        assert deltas[-1].finish_reason == "length"
        assert len(deltas) == 1 + 2 + 1

    def test_what_cannot_be_made_up_is_refused_by_name(self) -> None:
        impossible = tool("f", x={"type": "string", "pattern": r"(?=a)b"})
        with pytest.raises(UnsupportedParameterError) as refusal:
            chat("Hi", tools=[impossible])
        assert refusal.value.param == "tools"
        with pytest.raises(UnsupportedParameterError) as refusal:
            chat("Hi", tools=[TIME, {"type": "custom", "custom": {"name": "x"}}])
        assert refusal.value.param == "tools[1].type"
        with pytest.raises(UnsupportedParameterError) as refusal:
            chat("Hi", response_format={"type": "json_schema", "json_schema": {"schema": {"type": "animal"}}})
        assert refusal.value.param == "response_format"


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": -2.1}, "frequency_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": False, "top_logprobs": 2}, "top_logprobs"),
        ({"stop": [""]}, "stop"),
        ({"tools": []}, "tools"),
        ({"function_call": "auto"}, "function_call"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
    ],
)
def test_values_that_cannot_be_meant(parameters: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        make_echo().chat(ChatRequest("m", [{"role": "user", "content": "Hi"}], parameters), CallContext("r"))
    assert refusal.value.param == param


def test_refusals_speak_as_openai_does() -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        chat("Hi", temperature=2.5)
    assert refusal.value.code == "decimal_above_max_value"
    expected = "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 2.5 instead."
    assert refusal.value.message == expected


def test_values_at_their_bounds_are_fine() -> None:
    parameters = {"temperature": 2, "top_p": 0.0, "n": 1, "presence_penalty": -2, "frequency_penalty": 2.0, "seed": 1}
    assert content("Hi", stop=["a", "b", "c", "d"], top_logprobs=0, **parameters) == "Hi"


class TestCompletions:
    def test_the_prompt_comes_back_cut_to_sixteen_tokens(self) -> None:
        prompt = " ".join("abcdefghijklmnopqrst")
        deltas = complete(prompt)
        assert text(prompt) == prompt[:31]
        assert deltas[-1] == TextDelta(finish_reason="length", usage=Usage(20, 16))

    def test_echo_and_suffix(self) -> None:
        assert text("Once upon", echo=True) == "Once uponOnce upon"
        assert text("Once upon", echo=True, suffix=" the end", max_tokens=1) == "Once uponOnce the end"
        assert text("Once upon", suffix=" the end") == "Once upon"
        assert complete("Once upon", suffix=" the end")[-1].usage == Usage(4, 2)

    def test_scoring_a_prompt(self) -> None:
        """`echo` without a completion, as evaluation harnesses ask for log probabilities."""
        deltas = complete("Once upon", echo=True, max_tokens=0, logprobs=1)
        assert [logprob.token for delta in deltas for logprob in delta.logprobs] == ["Once", " upon"]
        assert deltas[-1] == TextDelta(finish_reason="length", usage=Usage(2, 0))

    def test_logprobs_without_alternatives(self) -> None:
        (delta, _) = complete("Hi", logprobs=0)
        assert [logprob.top for logprob in delta.logprobs] == [()]

    def test_token_ids_are_shown_as_they_are(self) -> None:
        deltas = complete([12, 34], echo=True, logprobs=0)
        assert [delta.text for delta in deltas] == ["<12>", "<34>", "<12>", "<34>", ""]
        assert deltas[-1].usage == Usage(2, 2)

    def test_choices_prompt_by_prompt(self) -> None:
        deltas = complete("a", "b", n=2, stop="x")
        assert [(delta.index, delta.text) for delta in deltas if delta.text] == [(0, "a"), (1, "a"), (2, "b"), (3, "b")]
        assert [delta.index for delta in deltas if delta.finish_reason] == [0, 1, 2, 3]
        assert [delta.usage for delta in deltas if delta.usage] == [Usage(2, 4)]

    def test_the_best_of_several_costs_them_all(self) -> None:
        deltas = complete("a b", best_of=3)
        assert {delta.index for delta in deltas} == {0}
        assert deltas[-1].usage == Usage(2, 6)


class TestEmbeddings:
    def test_similar_texts_are_near(self) -> None:
        cat, tomcat, physics = embed("The cat sat on the mat.", "the cats sat on a mat", "Quantum physics is hard")
        assert cosine(cat, tomcat) > 0.5
        assert abs(cosine(cat, physics)) < 0.3

    def test_length(self) -> None:
        assert len(embed("Hi")[0]) == 256
        assert len(make_echo(dimensions=8).embed(EmbeddingsRequest("m", ["Hi"]), CallContext("r")).vectors[0]) == 8

    @pytest.mark.parametrize("value", [" ", "\n\n", "ab ba", [7], [7, 7, 8]])
    @pytest.mark.parametrize("dimensions", [1, 2, 256])
    def test_every_vector_has_length_one(self, value: Any, dimensions: int) -> None:
        assert math.hypot(*embed(value, dimensions=dimensions)[0]) == pytest.approx(1.0)

    def test_token_ids(self) -> None:
        one, other, again = embed([1, 2, 3], [4, 5, 6], [1, 2, 3])
        assert one == again != other

    @pytest.mark.parametrize("inputs", [[], ["x", ""], [[]], ["x"] * 2049])
    def test_inputs_that_cannot_be_meant(self, inputs: Any) -> None:
        with pytest.raises(InvalidRequestError) as refusal:
            embed(*inputs)
        assert refusal.value.param == "input"


def cosine(one: list[float], other: list[float]) -> float:
    return sum(left * right for left, right in zip(one, other, strict=True))


class TestPace:
    def test_each_token_waits_and_choices_side_by_side(self) -> None:
        request = ChatRequest("m", [{"role": "user", "content": "a b c"}], {"n": 10})
        started = time.monotonic()
        list(make_echo(delay=0.02).chat(request, CallContext("r")))
        assert 0.06 <= time.monotonic() - started < 0.3

    def test_a_long_delay_is_filled_with_silence(self) -> None:
        request = ChatRequest("m", [{"role": "user", "content": "Hi"}])
        stream = make_echo(delay=0.1).chat(request, CallContext("r", heartbeat_interval=0.03))
        assert [delta if delta is HEARTBEAT else "delta" for delta in stream] == [HEARTBEAT] * 3 + ["delta"] * 2

    @pytest.mark.parametrize(
        "options",
        [
            {"delay": -1},
            {"delay": math.nan},
            {"delay": math.inf},
            {"delay": "1"},
            {"delay": True},
            {"dimensions": 0},
            {"dimensions": 3073},
            {"dimensions": 2.5},
        ],
    )
    def test_options_that_cannot_be_meant(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(options))):
            EchoOptions(**options)
