"""Tool calls that models write as text, complete, in fragments and malformed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.core.errors import InvalidAnswerError, InvalidRequestError
from openai_compat.services.emulation.call_parser import MAX_CALL_CHARS, CallTextParser
from openai_compat.services.emulation.json_repair import repair_value
from openai_compat.services.emulation.tool_rules import requires_call, to_rules

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer", "minimum": 1},
                "unit": {"enum": ["C", "F"], "type": "string"},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
SHELL = {"type": "custom", "custom": {"name": "shell"}}
PARIS = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


def read(
    text: str, *, size: int = 0, choice: Any = "auto", allows_many: bool = True, is_complete: bool = True
) -> tuple[list[str], list[tuple[str | None, Any]]]:
    """Return the pieces of content and the calls of an answer that arrives in parts of `size` characters."""
    rules = to_rules([WEATHER, SHELL], choice, allows_many=allows_many)
    assert rules is not None
    parser = CallTextParser(rules)
    parts = [text[at : at + size] for at in range(0, len(text), size)] if size else [text]
    content = [parser.push(part) for part in parts]
    rest, calls = parser.end(is_complete=is_complete)
    return [piece for piece in [*content, rest] if piece], [(call.name, call.arguments) for call in calls]


@pytest.mark.parametrize("size", [0, 1, 3, 7])
def test_text_before_a_call_is_content(size: int) -> None:
    content, calls = read(f"Let me look.{PARIS}", size=size)
    assert "".join(content) == "Let me look."
    assert calls == [("get_weather", '{"city": "Paris"}')]


@pytest.mark.parametrize(
    "text", ["Plain text.", "a < b and <tool", '{"city": "Paris"}', "```python\nprint(1)\n```", ""]
)
@pytest.mark.parametrize("size", [0, 1, 5])
def test_an_answer_without_calls_is_content(text: str, size: int) -> None:
    content, calls = read(text, size=size)
    assert ("".join(content), calls) == (text, [])


def test_text_is_passed_on_at_once() -> None:
    assert read("One two three", size=4)[0] == ["One ", "two ", "thre", "e"]


def test_json_that_names_a_person_is_an_answer() -> None:
    text = '{"name": "Ada", "born": 1815}'
    assert read(text, size=3) == ([text], [])
    assert read('{"name": "Ada", "bo', is_complete=False) == (['{"name": "Ada", "bo'], [])


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "get_weather", "arguments": {"city": "Paris"}}',
        '```json\n{"name": "get_weather", "parameters": {"city": "Paris"}}\n```',
        '[{"name": "get_weather", "arguments": {"city": "Paris"}}]',
        '{"type": "function", "function": {"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}}',
        '{"function": "get_weather", "arguments": {"city": "Paris"}}',
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}',
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris",},}</tool_call>',
        '<tool_call>```json\n{"name": "get_weather", "arguments": {"city": "Paris", "unit": null}}\n```</tool_call>',
    ],
)
@pytest.mark.parametrize("size", [0, 2])
def test_common_deviations_are_repaired(text: str, size: int) -> None:
    assert read(text, size=size) == ([], [("get_weather", '{"city": "Paris"}')])


def test_numbers_in_quotes_become_numbers() -> None:
    text = '<tool_call>{"name": "get_weather", "arguments": {"city": 75001, "days": "3"}}</tool_call>'
    assert json.loads(read(text)[1][0][1]) == {"city": "75001", "days": 3}


@pytest.mark.parametrize(
    ("alternatives", "value", "repaired"),
    [
        ([{"type": "integer"}, {"type": "null"}], "3", 3),
        ([{"$ref": "#/$defs/list"}, {"type": "null"}], "[1]", [1]),
        ([{"type": "integer"}, {"type": "string"}], "3", "3"),
        ([{"type": "integer"}, {"enum": ["3"]}], "3", "3"),
    ],
)
def test_alternatives_are_repaired_where_the_meaning_is_clear(alternatives: Any, value: Any, repaired: Any) -> None:
    """Agents describe an optional argument as a value or null."""
    schema = {"properties": {"a": {"anyOf": alternatives}}, "$defs": {"list": {"type": "array"}}}
    assert repair_value({"a": value}, schema) == {"a": repaired}


def test_the_repair_leaves_strings_alone() -> None:
    text = '<tool_call>{"name": "get_weather", "arguments": {"city": "[1, \\"x\\",]"},}</tool_call>'
    assert json.loads(read(text)[1][0][1]) == {"city": '[1, "x",]'}


@pytest.mark.parametrize("marker", ["<tool_call>", "</tool_call>", "</tool_call><tool_call>"])
def test_arguments_may_hold_a_marker(marker: str) -> None:
    """An agent may edit a file that has one."""
    call = json.dumps({"name": "get_weather", "arguments": {"city": f"a {marker} b"}})
    text = f"<tool_call>{call}</tool_call>"
    names_and_cities = [(name, json.loads(arguments)["city"]) for name, arguments in read(text + PARIS)[1]]
    assert names_and_cities == [("get_weather", f"a {marker} b"), ("get_weather", "Paris")]
    assert len(read(text + text[:-3], is_complete=False)[1]) == 1


def test_parallel_calls_and_what_the_model_invents_behind_them() -> None:
    text = f"{PARIS}\n{PARIS}\n<tool_response>Sunny</tool_response> It is sunny."
    content, calls = read(text, size=5)
    assert (content, len(calls)) == ([], 2)
    assert len(read(text, allows_many=False)[1]) == 1


def test_a_number_that_json_lacks_is_an_error() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    rules = to_rules(tools, "auto", allows_many=True)
    assert rules is not None
    parser = CallTextParser(rules)
    parser.push('<tool_call>{"name": "f", "arguments": {"x": 1e999}}</tool_call>')
    with pytest.raises(InvalidAnswerError, match="invalid arguments"):
        parser.end(is_complete=True)


def test_a_custom_tool_gets_text() -> None:
    text = '<tool_call>{"name": "shell", "arguments": {"input": "ls -l"}}</tool_call>'
    assert read(text)[1] == [("shell", "ls -l")]


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ('{"name": "get_weather", "arguments": {}}', "'city' is missing"),
        ('{"name": "get_weather", "arguments": {"city": "P", "days": 0}}', "'days' breaks its minimum of 1"),
        ('{"name": "get_weather", "arguments": {"city": "P", "unit": "K"}}', "'unit' is none of the allowed values"),
        ('{"name": "get_weather", "arguments": {"city": "P", "x": 1}}', "'x' is not allowed"),
        ('{"name": "get_weather", "arguments": {"city": ["P"]}}', "'city' must be of the type string"),
        ('{"name": "get_weather", "arguments": [1]}', "the value must be of the type object"),
        ('{"name": "delete_all", "arguments": {}}', "a tool that the request does not have"),
        ('{"name": get_weather}', "not valid JSON"),
        ('{"name": "get_weather", "arguments": {"city": NaN}}', "not valid JSON"),
        ('{"name": "get_weather", "arguments": {"city": "P", "' + "x" * 9000 + '": 1}}', "characters more"),
    ],
)
def test_an_invalid_call_is_an_error(call: str, reason: str) -> None:
    with pytest.raises(InvalidAnswerError, match=reason):
        read(f"<tool_call>{call}</tool_call>")


def test_a_call_without_the_marker_to_an_unknown_tool_is_an_error() -> None:
    with pytest.raises(InvalidAnswerError, match="does not have"):
        read('{"name": "delete_all", "arguments": {"path": "/"}}')


def test_a_required_call_that_is_missing_is_an_error() -> None:
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        with pytest.raises(InvalidAnswerError, match="requires"):
            read("It is sunny.", choice=choice)
        assert read(f"Well.{PARIS}", choice=choice)[1]


def test_a_call_that_the_limit_cut_off_is_left_out() -> None:
    half = '<tool_call>{"name": "get_weather", "argum'
    assert read(half, is_complete=False) == ([], [])
    assert len(read(PARIS + half, is_complete=False)[1]) == 1
    assert read(half, choice="required", is_complete=False) == ([], [])


def test_a_call_without_the_marker_that_the_limit_cut_off_is_not_completed() -> None:
    """The repair of missing braces would turn it into a call that lacks arguments."""
    half = '{"name": "get_weather", "arguments": {"city": "Paris"'
    assert read(half, is_complete=False) == ([half], [])
    assert len(read(half)[1]) == 1


def test_calls_have_a_limit_on_their_length() -> None:
    with pytest.raises(InvalidAnswerError, match="too long"):
        read("<tool_call>" + "x" * MAX_CALL_CHARS)


@pytest.mark.parametrize("mode", ["auto", "required"])
@pytest.mark.parametrize("is_nested", [True, False])
def test_allowed_tools_restrict_the_tools(mode: str, is_nested: bool) -> None:
    allowed = {"mode": mode, "tools": [{"type": "custom", "custom": {"name": "shell"}}]}
    choice = {"type": "allowed_tools", **({"allowed_tools": allowed} if is_nested else allowed)}
    assert requires_call(choice) == (mode == "required")
    with pytest.raises(InvalidAnswerError, match="does not allow"):
        read(PARIS, choice=choice)


def test_a_choice_of_an_unknown_tool_is_the_clients_error() -> None:
    with pytest.raises(InvalidRequestError, match="there is no tool 'f'"):
        to_rules([WEATHER], {"type": "function", "function": {"name": "f"}}, allows_many=True)
    assert to_rules([WEATHER], "none", allows_many=True) is None
