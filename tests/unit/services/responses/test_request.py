"""Responses requests as chat payloads."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.core.errors import InvalidRequestError
from openai_compat.services.responses.items import to_input_items
from openai_compat.services.responses.request import TranslatedRequest, translate_request


def translate(**payload: Any) -> TranslatedRequest:
    payload = {"model": "m", "input": "Hi", **payload}
    return translate_request(payload, (), to_input_items(payload["input"]), lambda _: "")


def test_parameters_get_the_names_of_chat() -> None:
    chat = translate(
        instructions="Be brief.",
        max_output_tokens=5,
        temperature=0.5,
        user="u",
        metadata={"a": "b"},
        text={"verbosity": "low", "format": {"type": "json_object"}},
        reasoning={"effort": "low", "summary": "auto"},
        top_logprobs=2,
        include=["message.output_text.logprobs"],
        stream=True,
        store=False,
        client_metadata={"x": "y"},
        seed=7,
    ).chat
    assert chat == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "stream": True,
        "temperature": 0.5,
        "user": "u",
        "metadata": {"a": "b"},
        "seed": 7,
        "max_completion_tokens": 5,
        "verbosity": "low",
        "reasoning_effort": "low",
        "response_format": {"type": "json_object"},
        "logprobs": True,
        "top_logprobs": 2,
    }


def test_a_schema_is_nested_in_chat() -> None:
    format_ = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True, "description": None}
    assert translate(text={"format": format_}).chat["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
    }


def test_tools_may_stand_among_the_items() -> None:
    tool = {"type": "function", "name": "run", "parameters": {}}
    items = [{"type": "additional_tools", "role": "developer", "tools": [tool]}, {"role": "user", "content": "Hi"}]
    chat = translate(input=items, tool_choice="auto", parallel_tool_calls=False).chat
    assert [found["function"]["name"] for found in chat["tools"]] == ["run"]
    assert (chat["tool_choice"], chat["parallel_tool_calls"]) == ("auto", False)
    assert len(chat["messages"]) == 1


def test_a_tool_that_is_given_twice_is_sent_once() -> None:
    """Upstreams refuse two functions of one name. The last definition counts."""
    again = {"type": "function", "name": "run", "description": "New."}
    items = [{"type": "additional_tools", "role": "developer", "tools": [again]}, {"role": "user", "content": "Hi"}]
    chat = translate(input=items, tools=[{"type": "function", "name": "run"}, {"type": "function", "name": "b"}]).chat
    assert [tool["function"] for tool in chat["tools"]] == [{"name": "run", "description": "New."}, {"name": "b"}]


def test_tools_of_an_item_must_be_a_list() -> None:
    with pytest.raises(InvalidRequestError) as raised:
        translate(input=[{"role": "user", "content": "Hi"}, {"type": "additional_tools", "tools": 5}])
    assert (raised.value.param, raised.value.code) == ("input[1].tools", "invalid_type")


def test_without_tools_there_is_no_choice() -> None:
    chat = translate(tools=[{"type": "web_search"}], tool_choice="auto", parallel_tool_calls=True).chat
    assert chat.keys() == {"model", "messages", "stream"}


def test_what_is_left_out_is_told() -> None:
    translated = translate(
        tools=[{"type": "web_search"}], truncation="auto", access_programs=[1], **{"n\r\nx": 1, "max_tool_calls": 3}
    )
    assert translated.adaptations == {
        "tools.web_search": "dropped",
        "truncation": "dropped",
        "access_programs": "dropped",
        "?": "dropped",
    }


@pytest.mark.parametrize("name", ["prompt", "moderation", "context_management"])
def test_what_changes_the_answer_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        translate(**{name: {"id": "x"}})
    assert (raised.value.param, raised.value.code) == (name, "unsupported_parameter")


def test_a_request_without_anything_to_answer_is_refused() -> None:
    with pytest.raises(InvalidRequestError) as raised:
        translate(input=None)
    assert (raised.value.param, raised.value.code) == ("input", "missing_required_parameter")
