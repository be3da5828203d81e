# ruff: noqa: E501 - tables
"""What Anthropic's API is sent for each part of a chat call."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.backends.anthropic.request import AnthropicOptions, translate_request
from openai_compat.core.errors import InvalidRequestError, UnsupportedParameterError
from openai_compat.core.types import ChatRequest

USER = {"role": "user", "content": "Hi"}
HI = {"type": "text", "text": "Hi"}
MARK = {"type": "ephemeral"}
FUNCTION = {"name": "f", "description": "does f", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}
OWN_TOOL = {"name": "f", "description": "does f", "input_schema": {"type": "object", "properties": {}}}
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
DATA_URL = "data:image/png;base64,AAAA"


def call(id_: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": "f", "arguments": arguments}}


def use(id_: str, **input_: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id_, "name": "f", "input": input_}


def result(id_: str, text: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id_, "content": [{"type": "text", "text": text}]}


def translate(
    messages: list[Any], model: str = "claude-x", options: AnthropicOptions | None = None, **parameters: Any
) -> dict[str, Any]:
    return translate_request(ChatRequest("m", messages, parameters), model, options or AnthropicOptions()).body


def adaptations(model: str = "claude-x", **parameters: Any) -> dict[str, str]:
    return translate_request(ChatRequest("m", [USER], parameters), model, AnthropicOptions()).adaptations


def test_smallest_request() -> None:
    assert translate([USER]) == {
        "model": "claude-x",
        "max_tokens": 32000,
        "messages": [{"role": "user", "content": [HI]}],
        "stream": False,
    }


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        pytest.param([USER, {"role": "user", "content": "Bye"}],
                     [{"role": "user", "content": [HI, {"type": "text", "text": "Bye"}]}], id="roles are merged"),
        pytest.param([USER, {"role": "assistant", "content": ""}, {"role": "user", "content": [{"type": "text", "text": ""}]}],
                     [{"role": "user", "content": [HI]}], id="empty contents are left out"),
        pytest.param(
            [{"role": "user", "content": [{"type": "text", "text": " \n"}, HI]},
             {"role": "assistant", "content": "\n\n", "tool_calls": [call("a")]},
             {"role": "tool", "tool_call_id": "a", "content": "one"},
             {"role": "assistant", "content": [{"type": "text", "text": "\t"}]}, {"role": "user", "content": " "}],
            [{"role": "user", "content": [HI]}, {"role": "assistant", "content": [use("a")]},
             {"role": "user", "content": [result("a", "one")]}],
            id="texts of white space are left out"),
        pytest.param(
            [USER, {"role": "assistant", "content": "I ask", "tool_calls": [call("a", '{"x": 1}'), call("b:0")]},
             {"role": "tool", "tool_call_id": "b:0", "content": "two"},
             {"role": "tool", "tool_call_id": "a", "content": "one"}, USER],
            [{"role": "user", "content": [HI]},
             {"role": "assistant", "content": [{"type": "text", "text": "I ask"}, use("a", x=1), use("b_0")]},
             {"role": "user", "content": [result("b_0", "two"), result("a", "one"), HI]}],
            id="results of parallel calls are one message"),
        pytest.param(
            [USER, {"role": "assistant", "content": None, "tool_calls": [call("a", ""), call("b", "oops")]},
             {"role": "tool", "tool_call_id": "a", "content": ""}, {"role": "tool", "tool_call_id": "b", "content": "x"}],
            [{"role": "user", "content": [HI]},
             {"role": "assistant", "content": [use("a"), use("b", arguments="oops")]},
             {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}, result("b", "x")]}],
            id="arguments that are no object, and a result without content"),
        pytest.param(
            [USER, {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
             {"role": "function", "name": "f", "content": "x"}],
            [{"role": "user", "content": [HI]}, {"role": "assistant", "content": [use("f")]},
             {"role": "user", "content": [result("f", "x")]}],
            id="deprecated function calls"),
        pytest.param([USER, {"role": "assistant", "content": "So: "}],
                     [{"role": "user", "content": [HI]}, {"role": "assistant", "content": [{"type": "text", "text": "So:"}]}],
                     id="a beginning of the answer ends without a space"),
        pytest.param(
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": DATA_URL}},
                                          {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]}],
            [{"role": "user", "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}}]}],
            id="images"),
        pytest.param(
            [{"role": "user", "content": [{"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}}]}],
            [{"role": "user", "content": [{"type": "document", "title": "a.pdf", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}]}],
            id="files in PDF"),
        pytest.param(
            [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": MARK}]}],
            [{"role": "user", "content": [{**HI, "cache_control": MARK}]}], id="marks for the cache on parts"),
        pytest.param([{**USER, "cache_control": MARK}], [{"role": "user", "content": [{**HI, "cache_control": MARK}]}],
                     id="marks for the cache on messages"),
    ],
)  # fmt: skip
def test_messages(messages: list[Any], expected: list[Any]) -> None:
    assert translate(messages)["messages"] == expected


def test_instructions_anywhere_are_the_system_prompt() -> None:
    messages = [
        {"role": "system", "content": "a"},
        USER,
        {"role": "developer", "content": [{"type": "text", "text": "b"}]},
    ]
    body = translate(messages)
    assert body["system"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert body["messages"] == [{"role": "user", "content": [HI]}]


def test_signed_reasoning_comes_before_the_text_and_the_calls() -> None:
    details = [
        {"type": "reasoning.text", "text": "I ", "index": 0},
        {"type": "reasoning.text", "text": "think", "signature": "sig", "index": 0},
        {"type": "reasoning.encrypted", "data": "secret", "format": "anthropic-claude-v1"},
        {"type": "reasoning.text", "text": "not signed"},
        {"type": "reasoning.text", "text": "of another model", "signature": "x", "format": "openai-responses-v1"},
    ]
    message = {"role": "assistant", "content": "Text", "reasoning_details": details, "tool_calls": [call("a")]}
    assert translate([USER, message])["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "I think", "signature": "sig"},
        {"type": "redacted_thinking", "data": "secret"},
        {"type": "text", "text": "Text"},
        use("a"),
    ]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"max_completion_tokens": 7, "max_tokens": 9}, {"max_tokens": 7}),
        ({"max_tokens": 9}, {"max_tokens": 9}),
        ({"stop": "x"}, {"stop_sequences": ["x"]}),
        ({"stop": ["x", "y"]}, {"stop_sequences": ["x", "y"]}),
        ({"temperature": 0.5, "top_p": 0.9, "top_k": 5}, {"temperature": 0.5, "top_p": 0.9, "top_k": 5}),
        ({"temperature": 1.7}, {"temperature": 1}),
        ({"user": "u"}, {"metadata": {"user_id": "u"}}),
        ({"safety_identifier": "s", "user": "u"}, {"metadata": {"user_id": "s"}}),
        ({"response_format": {"type": "text"}}, {"output_config": None}),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
         {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
        ({"tools": [TOOL]}, {"tools": [OWN_TOOL], "tool_choice": None}),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]},
         {"tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}]}),
        ({"tools": [{"type": "function", "function": {**FUNCTION, "strict": True}, "cache_control": MARK}]},
         {"tools": [{**OWN_TOOL, "strict": True, "cache_control": MARK}]}),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
         {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        ({"tools": [TOOL], "tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}),
        ({"tools": [TOOL], "tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
        ({"tools": [TOOL], "tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
         {"tool_choice": {"type": "tool", "name": "f"}}),
        ({"tools": [TOOL, {"type": "function", "function": {"name": "g"}}],
          "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TOOL]}}},
         {"tools": [OWN_TOOL], "tool_choice": {"type": "any"}}),
        ({"tools": [TOOL], "parallel_tool_calls": False},
         {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
        ({"tools": [TOOL], "parallel_tool_calls": False, "tool_choice": "required"},
         {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}}),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, {"thinking": {"type": "enabled", "budget_tokens": 2000}}),
    ],
)  # fmt: skip
def test_parameters(parameters: dict[str, Any], expected: dict[str, Any]) -> None:
    body = translate([USER], **parameters)
    assert {name: body.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("model", "parameters", "expected"),
    [
        ("claude-sonnet-4-5-20250929", {"reasoning_effort": "low"}, {"type": "enabled", "budget_tokens": 2048}),
        ("claude-opus-4-20250514", {"reasoning_effort": "high"}, {"type": "enabled", "budget_tokens": 24576}),
        ("claude-3-7-sonnet-latest", {"reasoning_effort": "high", "max_tokens": 4096}, {"type": "enabled", "budget_tokens": 3072}),
        ("claude-haiku-4-5", {"reasoning_effort": "high", "max_tokens": 2000}, None),
        ("claude-opus-4-6", {"reasoning_effort": "high"}, {"type": "adaptive"}),
        ("claude-sonnet-5", {"reasoning_effort": "high"}, {"type": "adaptive"}),
        ("claude-3-5-sonnet-20241022", {"reasoning_effort": "high"}, None),
        ("claude-sonnet-4-5", {"reasoning_effort": "none"}, None),
        ("claude-sonnet-4-5", {"reasoning_effort": "low", "tools": [TOOL], "tool_choice": "required"}, None),
    ],
)  # fmt: skip
def test_effort_by_generation(model: str, parameters: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert translate([USER], model, **parameters).get("thinking") == expected


@pytest.mark.parametrize(("effort", "sent"), [("minimal", "low"), ("medium", "medium"), ("xhigh", "max")])
def test_effort_of_models_that_decide_themselves(effort: str, sent: str) -> None:
    format_ = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    output = translate([USER], "claude-opus-4-6", reasoning_effort=effort, response_format=format_)["output_config"]
    assert output == {"effort": sent, "format": {"type": "json_schema", "schema": SCHEMA}}


def test_the_model_config_replaces_budgets_and_limits() -> None:
    options = AnthropicOptions(max_tokens=5000, thinking="budget", thinking_budgets={"low": 1500})
    body = translate([USER], "any-name", options, reasoning_effort="low")
    assert (body["max_tokens"], body["thinking"]["budget_tokens"]) == (5000, 1500)


def test_a_loop_that_lost_its_reasoning_goes_on_without() -> None:
    messages = [USER, {"role": "assistant", "content": None, "tool_calls": [call("a")]},
                {"role": "tool", "tool_call_id": "a", "content": "x"}]  # fmt: skip
    assert "thinking" not in translate(messages, "claude-sonnet-4-5", reasoning_effort="low")


def test_sampling_is_left_to_a_model_that_thinks() -> None:
    body = translate([USER], reasoning_effort="low", temperature=0.2, top_p=0.9)
    assert not {"temperature", "top_p"} & body.keys()


def test_the_client_is_told_what_was_changed_or_left_out() -> None:
    assert adaptations(temperature=1.7, seed=7, presence_penalty=1) == {
        "temperature": "1",
        "seed": "dropped",
        "presence_penalty": "dropped",
    }
    assert adaptations("claude-3-5-haiku-latest", reasoning_effort="low") == {"reasoning_effort": "dropped"}
    assert adaptations(temperature=0.5, user="u", stop="x") == {}


def test_tools_and_system_prompt_are_marked_for_the_cache() -> None:
    messages = [{"role": "system", "content": "a"}, {"role": "system", "content": "b"}, USER]
    body = translate(messages, options=AnthropicOptions(cache="auto"), tools=[TOOL])
    assert body["system"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": MARK}]
    assert body["tools"] == [{**OWN_TOOL, "cache_control": MARK}]
    assert body["messages"] == [{"role": "user", "content": [HI]}]


def test_marks_of_the_client_are_the_only_ones() -> None:
    messages = [{"role": "system", "content": "a"}, {**USER, "cache_control": MARK}]
    body = translate(messages, options=AnthropicOptions(cache="auto"), tools=[TOOL])
    assert body["system"] == [{"type": "text", "text": "a"}]
    assert body["tools"] == [OWN_TOOL]


@pytest.mark.parametrize(
    ("messages", "parameters", "param"),
    [
        ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}], {}, "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}], {},
         "messages[0].content[0].image_url.url"),
        ([{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}], {},
         "messages[0].content[0].file.file_data"),
        ([USER, {"role": "tool", "content": "x"}], {}, "messages[1].tool_call_id"),
        ([USER], {"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools[0].type"),
        ([USER], {"tools": [TOOL], "tool_choice": "sometimes"}, "tool_choice"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_named(messages: list[Any], parameters: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        translate(messages, **parameters)
    assert refused.value.param == param


def test_json_without_a_schema_is_refused() -> None:
    with pytest.raises(UnsupportedParameterError) as refused:
        translate([USER], response_format={"type": "json_object"})
    assert refused.value.param == "response_format"


@pytest.mark.parametrize(
    "options", [{"max_tokens": 0}, {"thinking_budgets": {"much": 2000}}, {"thinking_budgets": {"low": 10}}]
)
def test_wrong_options_prevent_the_start(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|none of"):
        AnthropicOptions(**options)
