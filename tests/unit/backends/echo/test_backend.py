"""Tests of the echo model beyond the contract that all backends share."""

from __future__ import annotations

import json
import math
from typing import Any, cast

import jsonschema
import pytest

from openai_compat.backends.echo.backend import EchoBackend, EchoOptions
from openai_compat.backends.resources import BackendResources
from openai_compat.core.cancellation import CancellationToken
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
    """Return the name and the arguments of the only tool call."""
    fragments = [fragment for delta in deltas for fragment in delta.tool_calls]
    return fragments[0].name, json.loads("".join(fragment.arguments for fragment in fragments))


class TestChat:
    def test_each_token_is_a_delta_and_the_last_delta_has_the_finish_reason(self) -> None:
        assert chat("Hello there, friend") == [
            ChatDelta("Hello"),
            ChatDelta(" there"),
            ChatDelta(","),
            ChatDelta(" friend"),
            ChatDelta(finish_reason="stop", usage=Usage(4, 4)),
        ]

    def test_the_last_user_message_is_echoed(self) -> None:
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": "first"},
            {"role": "user", "content": "second"},
            {"role": "assistant", "content": "third", "tool_calls": None},
            {"role": "system", "content": "fourth"},
        ]
        assert content(messages) == "second"
        assert content(messages[2:]) == "fourth"
        assert chat(messages)[-1].usage == Usage(4, 1)

    def test_parts_that_are_not_text_become_placeholders(self) -> None:
        parts = [
            {"type": "text", "text": "Look: "},
            {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            {"type": "file", "file": {"file_id": "f"}},
        ]
        assert content([{"role": "user", "content": parts}]) == "Look: [image][audio][file]"

    def test_an_empty_message_gets_an_empty_answer(self) -> None:
        assert chat("") == [ChatDelta(finish_reason="stop", usage=Usage(0, 0))]

    def test_choices_alternate(self) -> None:
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
    def test_a_limit_cuts_only_longer_answers(self, limit: str) -> None:
        deltas = chat("one two three", **{limit: 2})
        assert deltas[-1] == ChatDelta(finish_reason="length", usage=Usage(3, 2))
        assert chat("one two three", **{limit: 3})[-1].finish_reason == "stop"

    def test_max_completion_tokens_overrides_max_tokens(self) -> None:
        assert content("one two three", max_tokens=1, max_completion_tokens=2) == "one two"

    def test_logprobs_name_the_token_first_and_the_requested_alternatives(self) -> None:
        (delta, _) = chat("Hello", logprobs=True)
        assert [(logprob.token, logprob.top) for logprob in delta.logprobs] == [("Hello", ())]
        for top in (1, 20):
            (delta, _) = chat(" the", logprobs=True, top_logprobs=top)
            (logprob,) = delta.logprobs
            assert logprob.top[0] == (" the", logprob.logprob)
            assert len({token for token, _ in logprob.top}) == top
            assert sum(math.exp(value) for _, value in logprob.top) < 1
        assert chat("Hello", logprobs=False)[0].logprobs == ()

    def test_a_response_format_without_schema_gives_a_json_object(self) -> None:
        assert content('Zoë says "hi"', response_format={"type": "json_object"}) == r'{"echo":"Zoë says \"hi\""}'
        assert content("Hi", response_format={"type": "text"}) == "Hi"
        assert content("Hi", response_format={"type": "json_schema", "json_schema": {"name": "x"}}) == '{"echo":"Hi"}'

    def test_a_structured_output_matches_its_schema(self) -> None:
        schema = {
            "type": "object",
            "properties": {"answer": {"type": "string"}, "certainty": {"type": "number", "minimum": 0, "maximum": 1}},
            "required": ["answer", "certainty"],
            "additionalProperties": False,
        }
        response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        answer = json.loads(content("Why?", response_format=response_format))
        jsonschema.validate(answer, schema)
        assert answer["answer"] == "Why?"


class TestTools:
    def test_arguments_are_streamed_in_fragments_after_id_and_name(self) -> None:
        deltas = chat("Forecast for Paris", tools=[WEATHER], tool_choice="required")
        first = deltas[0].tool_calls[0]
        assert (first.index, first.name, first.arguments) == (0, "get_weather", "")
        assert first.id is not None
        assert first.id.startswith("call_")
        fragments = [delta.tool_calls for delta in deltas[1:-1]]
        assert len(fragments) > 3
        assert all(calls == (ToolCallDelta(0, calls[0].arguments),) for calls in fragments)
        assert deltas[-1].finish_reason == "tool_calls"
        assert deltas[-1].usage == Usage(3, len(fragments))
        assert called(deltas) == ("get_weather", {"city": "Forecast for Paris"})

    def test_the_tool_that_shares_most_words_is_called(self) -> None:
        for prompt, name in (
            ("What is the weather?", "get_weather"),
            ("A city forecast", "get_weather"),
            ("Hello", "get_time"),
        ):
            assert called(chat(prompt, tools=[TIME, WEATHER], tool_choice="required"))[0] == name

    @pytest.mark.parametrize("prompt", ["What is the weather?", "rm -rf /", "get_weathers or forget_weather", ""])
    @pytest.mark.parametrize("options", [{}, {"tool_choice": "auto"}])
    def test_no_tool_is_called_unless_the_user_names_it(self, prompt: str, options: dict[str, Any]) -> None:
        """Agents execute the calls, and the arguments contain the user's words."""
        assert content(prompt, tools=[WEATHER, tool("shell", command={"type": "string"})], **options) == prompt

    @pytest.mark.parametrize("prompt", ["Call get_time.", "`get_time`?", "get_time and get_rich, please"])
    def test_a_tool_that_the_user_names_is_called(self, prompt: str) -> None:
        assert called(chat(prompt, tools=[WEATHER, TIME]))[0] == "get_time"

    def test_a_tool_that_an_earlier_message_names_is_not_called(self) -> None:
        messages = [{"role": "system", "content": "Use get_time."}, {"role": "user", "content": "Hi"}]
        assert content(messages, tools=[TIME]) == "Hi"

    def test_a_tool_result_is_answered_in_text(self) -> None:
        call = {"id": "c", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": "What time is it?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "Five o'clock"},
        ]
        assert content(messages, tools=[TIME]) == "Five o'clock"
        assert called(chat(messages, tools=[TIME], tool_choice="required"))[0] == "get_time"

    def test_call_ids_differ_between_turns(self) -> None:
        once = [{"role": "user", "content": "Hi"}]
        turns = [chat(messages, tools=[TIME], tool_choice="required") for messages in (once, once * 2, once)]
        assert len({deltas[0].tool_calls[0].id for deltas in turns}) == 2

    @pytest.mark.parametrize(
        ("choice", "name"),
        [
            ("auto", "get_weather"),
            ("required", "get_weather"),
            ({"type": "function", "function": {"name": "get_time"}}, "get_time"),
            (
                {
                    "type": "allowed_tools",
                    "allowed_tools": {
                        "mode": "auto",
                        "tools": [{"type": "function", "function": {"name": "get_time"}}],
                    },
                },
                "get_time",
            ),
        ],
    )
    def test_tool_choice_selects_the_tool(self, choice: Any, name: str) -> None:
        assert called(chat("Hi, get_weather or get_time", tools=[TIME, WEATHER], tool_choice=choice))[0] == name

    def test_tool_choice_none_prevents_a_call(self) -> None:
        assert content("Call get_time", tools=[TIME], tool_choice="none") == "Call get_time"

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
    def test_an_invalid_tool_choice_is_refused(self, choice: Any) -> None:
        with pytest.raises(InvalidRequestError) as refusal:
            chat("Hi", tools=[TIME], tool_choice=choice)
        assert refusal.value.param == "tool_choice"

    def test_a_tool_without_parameters_gets_an_empty_object(self) -> None:
        bare = {"type": "function", "function": {"name": "f", "parameters": None}}
        assert called(chat("Hi", tools=[bare], tool_choice="required")) == ("f", {})

    def test_a_limit_cuts_the_arguments_of_a_call(self) -> None:
        deltas = chat("Forecast", tools=[WEATHER], tool_choice="required", max_tokens=2)
        assert deltas[-1].finish_reason == "length"
        assert len(deltas) == 1 + 2 + 1

    def test_an_unsupported_schema_or_tool_type_is_refused_with_its_param(self) -> None:
        impossible = tool("f", x={"type": "string", "pattern": r"(?=a)b"})
        with pytest.raises(UnsupportedParameterError) as refusal:
            chat("Hi", tools=[impossible], tool_choice="required")
        assert refusal.value.param == "tools"
        with pytest.raises(UnsupportedParameterError) as refusal:
            chat("Hi", tools=[TIME, {"type": "custom", "custom": {"name": "x"}}])
        assert refusal.value.param == "tools[1].type"
        with pytest.raises(UnsupportedParameterError) as refusal:
            chat("Hi", response_format={"type": "json_schema", "json_schema": {"schema": {"type": "animal"}}})
        assert refusal.value.param == "response_format"


@pytest.mark.parametrize("role", ["", "User", "oracle", "data"])
def test_a_role_that_openai_does_not_know_is_refused_as_openai_refuses_it(role: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        chat([{"role": "user", "content": "Hi"}, {"role": role, "content": "Hi"}])
    assert (refusal.value.param, refusal.value.code) == ("messages[1].role", "invalid_value")
    assert refusal.value.message == (
        f"Invalid value: '{role}'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and "
        "'developer'."
    )


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
def test_a_parameter_out_of_range_is_refused(parameters: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        make_echo().chat(ChatRequest("m", [{"role": "user", "content": "Hi"}], parameters), CallContext("r"))
    assert refusal.value.param == param


def test_refusals_have_the_code_and_message_of_openai() -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        chat("Hi", temperature=2.5)
    assert refusal.value.code == "decimal_above_max_value"
    expected = "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 2.5 instead."
    assert refusal.value.message == expected


def test_values_at_their_bounds_are_accepted() -> None:
    parameters = {"temperature": 2, "top_p": 0.0, "n": 1, "presence_penalty": -2, "frequency_penalty": 2.0, "seed": 1}
    assert content("Hi", stop=["a", "b", "c", "d"], top_logprobs=0, **parameters) == "Hi"


class TestCompletions:
    def test_the_prompt_is_echoed_and_cut_to_sixteen_tokens(self) -> None:
        prompt = " ".join("abcdefghijklmnopqrst")
        deltas = complete(prompt)
        assert text(prompt) == prompt[:31]
        assert deltas[-1] == TextDelta(finish_reason="length", usage=Usage(20, 16))

    def test_echo_precedes_the_answer_and_suffix_follows_it(self) -> None:
        assert text("Once upon", echo=True) == "Once uponOnce upon"
        assert text("Once upon", echo=True, suffix=" the end", max_tokens=1) == "Once uponOnce the end"
        assert text("Once upon", suffix=" the end") == "Once upon"
        assert complete("Once upon", suffix=" the end")[-1].usage == Usage(4, 2)

    def test_echo_without_a_completion_scores_the_prompt(self) -> None:
        """Check the request that evaluation harnesses send for the log probabilities of a prompt."""
        deltas = complete("Once upon", echo=True, max_tokens=0, logprobs=1)
        assert [logprob.token for delta in deltas for logprob in delta.logprobs] == ["Once", " upon"]
        assert deltas[-1] == TextDelta(finish_reason="length", usage=Usage(2, 0))

    def test_logprobs_zero_has_no_alternatives(self) -> None:
        (delta, _) = complete("Hi", logprobs=0)
        assert [logprob.top for logprob in delta.logprobs] == [()]

    def test_token_ids_are_echoed_in_angle_brackets(self) -> None:
        deltas = complete([12, 34], echo=True, logprobs=0)
        assert [delta.text for delta in deltas] == ["<12>", "<34>", "<12>", "<34>", ""]
        assert deltas[-1].usage == Usage(2, 2)

    def test_choices_are_numbered_prompt_by_prompt(self) -> None:
        deltas = complete("a", "b", n=2, stop="x")
        assert [(delta.index, delta.text) for delta in deltas if delta.text] == [(0, "a"), (1, "a"), (2, "b"), (3, "b")]
        assert [delta.index for delta in deltas if delta.finish_reason] == [0, 1, 2, 3]
        assert [delta.usage for delta in deltas if delta.usage] == [Usage(2, 4)]

    def test_usage_counts_every_candidate_of_best_of(self) -> None:
        deltas = complete("a b", best_of=3)
        assert {delta.index for delta in deltas} == {0}
        assert deltas[-1].usage == Usage(2, 6)


class TestEmbeddings:
    def test_similar_texts_have_similar_vectors(self) -> None:
        cat, tomcat, physics = embed("The cat sat on the mat.", "the cats sat on a mat", "Quantum physics is hard")
        assert cosine(cat, tomcat) > 0.5
        assert abs(cosine(cat, physics)) < 0.3

    def test_the_number_of_dimensions_is_configurable(self) -> None:
        assert len(embed("Hi")[0]) == 256
        assert len(make_echo(dimensions=8).embed(EmbeddingsRequest("m", ["Hi"]), CallContext("r")).vectors[0]) == 8

    @pytest.mark.parametrize("value", [" ", "\n\n", "ab ba", [7], [7, 7, 8]])
    @pytest.mark.parametrize("dimensions", [1, 2, 256])
    def test_every_vector_has_length_one(self, value: Any, dimensions: int) -> None:
        assert math.hypot(*embed(value, dimensions=dimensions)[0]) == pytest.approx(1.0)

    def test_equal_token_ids_have_equal_vectors(self) -> None:
        one, other, again = embed([1, 2, 3], [4, 5, 6], [1, 2, 3])
        assert one == again != other

    @pytest.mark.parametrize("inputs", [[], ["x", ""], [[]], ["x"] * 2049])
    def test_invalid_inputs_are_refused(self, inputs: Any) -> None:
        with pytest.raises(InvalidRequestError) as refusal:
            embed(*inputs)
        assert refusal.value.param == "input"


def cosine(one: list[float], other: list[float]) -> float:
    return sum(left * right for left, right in zip(one, other, strict=True))


class RecordingToken(CancellationToken):
    """A token that records its waits among other events, and does not sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def wait(self, seconds: float) -> None:
        self.events.append(pytest.approx(seconds))


class TestDelay:
    def record(self, text: str, delay: float, heartbeat_interval: float = 0.0, **parameters: Any) -> list[Any]:
        """Return the waits, heartbeats and texts of a stream in their order."""
        token = RecordingToken()
        request = ChatRequest("m", [{"role": "user", "content": text}], parameters)
        context = CallContext("r", cancellation=token, heartbeat_interval=heartbeat_interval)
        for delta in make_echo(delay=delay).chat(request, context):
            token.events.append(delta.content if isinstance(delta, ChatDelta) else delta)
        return token.events

    def test_each_token_waits_once_for_all_choices(self) -> None:
        assert self.record("a b c", 0.5, n=3) == [
            *[0.5, "a", "a", "a"],
            *[0.5, " b", " b", " b"],
            *[0.5, " c", " c", " c"],
            *[None] * 3,
        ]

    def test_a_long_delay_is_filled_with_heartbeats(self) -> None:
        events = self.record("Hi", 1.0, heartbeat_interval=0.3)
        assert events == [*[0.3, HEARTBEAT] * 3, 0.1, "Hi", None]

    def test_without_a_delay_there_is_no_wait(self) -> None:
        assert self.record("Hi", 0) == ["Hi", None]

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
    def test_invalid_options_are_refused_by_name(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(options))):
            EchoOptions(**options)
