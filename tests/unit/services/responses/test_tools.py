"""Tools of the Responses API as chat tools, and back."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.large_json import LARGE_BYTES
from openai_compat.services.responses.tools import (
    ClientTool,
    to_tool_choice,
    to_tool_map,
    unwrap_input,
    wrap_input,
)
from openai_compat.services.tool_names import to_chat_name

FUNCTION = {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": None, "async": True}
CUSTOM = {
    "type": "custom",
    "name": "patch",
    "description": "Patches files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: WORD"},
}
NAMESPACE = {"type": "namespace", "name": "crm", "tools": [{"type": "function", "name": "find"}, CUSTOM]}


def test_a_function_loses_what_chat_does_not_know() -> None:
    (tool,) = to_tool_map([FUNCTION]).definitions
    assert tool == {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


@pytest.mark.parametrize("syntax", ["lark", "regex"])
def test_a_custom_tool_is_a_function_with_one_text(syntax: str) -> None:
    custom = {**CUSTOM, "format": {"type": "grammar", "syntax": syntax, "definition": "start: WORD"}}
    tool_map = to_tool_map([custom])
    function = tool_map.definitions[0]["function"]
    assert "Patches files." in function["description"]
    assert "start: WORD" in function["description"]
    assert function["parameters"]["required"] == ["input"]
    assert tool_map.find("patch") == ClientTool("custom", "patch")


def test_the_tools_of_a_namespace_keep_their_names_for_the_client() -> None:
    tool_map = to_tool_map([NAMESPACE])
    names = [tool["function"]["name"] for tool in tool_map.definitions]
    assert names == ["crm__find", "crm__patch"]
    assert tool_map.find("crm__find") == ClientTool("function", "find", "crm")
    assert tool_map.find("crm__patch") == ClientTool("custom", "patch", "crm")


def test_names_fit_chat_models() -> None:
    long = to_chat_name("n" * 60, "same beginning 1")
    assert len(long) == 64
    assert long != to_chat_name("n" * 60, "same beginning 2")
    assert to_chat_name(None, "a.b") != to_chat_name(None, "a_b")


@pytest.mark.parametrize("kind", ["web_search", "web_search_preview_2025_03_11", "tool_search"])
def test_a_tool_that_the_model_can_do_without_is_dropped_and_told(kind: str) -> None:
    tool_map = to_tool_map([{"type": kind, "external_web_access": False}, FUNCTION])
    assert len(tool_map.definitions) == 1
    assert list(tool_map.adaptations().values()) == ["dropped"]


@pytest.mark.parametrize("kind", ["file_search", "code_interpreter", "mcp", "computer_use_preview", "local_shell"])
def test_a_hosted_tool_is_refused_by_name(kind: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        to_tool_map([FUNCTION, {"type": kind}])
    assert (raised.value.param, raised.value.code) == ("tools[1].type", "unsupported_parameter")
    assert kind in raised.value.message


@pytest.mark.parametrize(
    ("tool", "param", "code"),
    [
        ({"type": "telepathy"}, "tools[0].type", "invalid_value"),
        ({"type": "function"}, "tools[0].name", "missing_required_parameter"),
        ({}, "tools[0].type", "missing_required_parameter"),
        ({"type": "namespace", "name": "n", "tools": [{"type": "function"}]}, "tools[0].tools[0].name",
         "missing_required_parameter"),
    ],
)  # fmt: skip
def test_a_malformed_tool_is_named(tool: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        to_tool_map([tool])
    assert (raised.value.param, raised.value.code) == (param, code)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        ("auto", "auto"),
        ("required", "required"),
        ({"type": "function", "name": "add"}, {"type": "function", "function": {"name": "add"}}),
        ({"type": "custom", "name": "patch"}, {"type": "function", "function": {"name": "patch"}}),
    ],
)
def test_tool_choice(choice: Any, expected: Any) -> None:
    assert to_tool_choice(choice, to_tool_map([FUNCTION, CUSTOM])) == expected


def test_allowed_tools_restrict_the_tools() -> None:
    tool_map = to_tool_map([FUNCTION, CUSTOM])
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "patch"}]}
    assert to_tool_choice(allowed, tool_map) == "required"
    assert [tool["function"]["name"] for tool in tool_map.definitions] == ["patch"]


@pytest.mark.parametrize("choice", [{"type": "file_search"}, {"type": "mcp", "server_label": "x"}, "often"])
def test_a_choice_that_cannot_be_honoured_is_refused(choice: Any) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        to_tool_choice(choice, to_tool_map([FUNCTION]))
    assert str(raised.value.param).startswith("tool_choice")


def test_a_choice_without_tools_asks_for_nothing_unless_it_is_required() -> None:
    dropped = to_tool_map([{"type": "web_search"}])
    assert to_tool_choice("auto", dropped) is None
    with pytest.raises(InvalidRequestError):
        to_tool_choice("required", dropped)


def test_the_input_of_a_custom_tool_survives_both_ways() -> None:
    text = '*** Begin Patch\n"quoted" é'
    assert unwrap_input(wrap_input(text)) == text


@pytest.mark.parametrize("padding", [0, LARGE_BYTES])
def test_the_input_of_a_custom_tool_may_have_line_breaks(padding: int) -> None:
    text = "a\nb" + "c" * padding
    assert unwrap_input(f'{{"input": "{text}"}}') == text


def test_a_custom_tool_without_arguments_has_an_empty_input() -> None:
    assert unwrap_input("{}") == ""


@pytest.mark.parametrize("arguments", ["plain text", '{"other": 1}', '{"input": 3}', "[1]"])
def test_arguments_of_another_form_are_the_input(arguments: str) -> None:
    assert unwrap_input(arguments) == arguments
