"""Made-up values are what their schema asks for, and odd schemas are refused, not obeyed."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import jsonschema
import pytest

from openai_compat.backends.echo.pattern_faker import UnreadablePatternError, make_matching
from openai_compat.backends.echo.schema_faker import NoExampleError, make_example

NODE = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
    "required": ["value", "next"],
    "additionalProperties": False,
}

BRANCH = {"anyOf": [{"$ref": "#"}, {"type": "null"}]}
TREE = {"type": "object", "properties": {"left": BRANCH, "right": BRANCH}, "required": ["left", "right"]}
BUSH = {"type": "object", "properties": {name: {"$ref": "#"} for name in "abc"}}

SCHEMAS: list[dict[str, Any]] = [
    {},
    {"type": "string", "minLength": 30},
    {"type": "string", "maxLength": 3},
    {"type": "string", "enum": ["celsius", "fahrenheit"]},
    {"type": ["string", "null"]},
    {"type": ["null", "string"]},
    {"const": {"a": 1}},
    {"type": "integer"},
    {"type": "integer", "minimum": 5, "maximum": 9},
    {"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 7},
    {"type": "integer", "minimum": 2.5},
    {"type": "integer", "maximum": -3},
    {"type": "integer", "minimum": 10, "multipleOf": 7},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "number", "minimum": 0.25, "maximum": 0.5},
    {"type": "number", "multipleOf": 0.5, "minimum": 7.2},
    {"type": "boolean"},
    {"type": "null"},
    {"type": "array"},
    {"type": "array", "items": {"type": "integer"}, "minItems": 3},
    {"type": "array", "items": {"type": "string"}, "minItems": 3, "uniqueItems": True},
    {"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True},
    {"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 3, "uniqueItems": True},
    {"type": "array", "items": {"type": "integer"}, "maxItems": 0},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "minItems": 3},
    {"type": "object", "required": ["anything"]},
    {"type": "object", "additionalProperties": {"type": "integer"}, "required": ["a"]},
    {"properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 3}}, "required": ["city"]},
    {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    {"oneOf": [False, {"type": "integer", "minimum": 3, "maximum": 2}, {"type": "boolean"}]},
    {"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"required": ["b"]}], "type": "object"},
    {"$ref": "#/$defs/node", "$defs": {"node": NODE}},
    {"$ref": "#/definitions/a~1b", "definitions": {"a/b": {"type": "boolean"}}},
    {"type": "array", "items": {"$ref": "#"}},
    TREE,
    BUSH,
    {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}, "required": ["children"]},
    *(
        {"type": "string", "format": format_}
        for format_ in ("date", "date-time", "email", "uri", "uuid", "ipv4", "time")
    ),
    {"type": "string", "pattern": r"^[A-Z]{2}-\d{3,5}$"},
    {"type": "string", "pattern": r"^\+?[0-9]{10}$", "maxLength": 10},
    {"type": "string", "pattern": r"^[^@\s]+@[^@\s]+\.[a-z]{2,}$", "minLength": 20},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_the_example_is_valid(schema: dict[str, Any]) -> None:
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    example = make_example(schema, "What is the weather in Paris?")
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(example)
    assert make_example(schema, "What is the weather in Paris?") == example


def test_strings_are_the_users_text() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {}}}}
    assert make_example(schema, "Hi") == {"a": "Hi", "b": ["Hi"]}


def test_what_the_schema_offers_comes_first() -> None:
    assert make_example({"type": "integer", "default": 7}, "") == 7
    assert make_example({"type": "string", "examples": ["Paris"]}, "Hi") == "Paris"
    assert make_example({"type": "string", "enum": ["x", "y"]}, "Hi") == "x"


def test_the_bounds_of_old_drafts() -> None:
    assert make_example({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, "") == 2
    assert make_example({"type": "integer", "minimum": 1, "exclusiveMinimum": False}, "") == 1


@pytest.mark.parametrize(
    "schema",
    [
        False,
        3,
        {"type": "animal"},
        {"properties": 3},
        {"type": "object", "properties": ["a"]},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#/$defs/missing"},
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"type": "array", "items": {}, "minItems": 10**9},
        {"type": "string", "minLength": 10**9},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 4},
        {"type": "number", "multipleOf": "x"},
        {"type": "number", "minimum": None},
        {"type": "string", "minLength": "x"},
        {"type": "string", "pattern": 3},
        {"anyOf": []},
        {"anyOf": 3},
        {"enum": 3},
    ],
    ids=str,
)
def test_a_schema_without_an_example_is_refused(schema: Any) -> None:
    with pytest.raises(NoExampleError):
        make_example(schema, "Hi")


def test_a_schema_that_explodes_is_refused_soon() -> None:
    """Ten properties of ten properties of ...: a thousand million values from one kilobyte."""
    levels = {
        f"level{number}": {"properties": {f"p{index}": {"$ref": f"#/$defs/level{number + 1}"} for index in range(10)}}
        for number in range(9)
    }
    required = {name: {**level, "required": list(level["properties"])} for name, level in levels.items()}
    started = time.monotonic()
    with pytest.raises(NoExampleError):
        make_example({"$ref": "#/$defs/level0", "$defs": {**required, "level9": {"type": "integer"}}}, "Hi")
    alternatives = {"anyOf": [{"properties": {"a": {"$ref": "#"}}, "required": ["a"]}] * 10}
    with pytest.raises(NoExampleError):
        make_example(alternatives, "Hi")
    circle = {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}
    with pytest.raises(NoExampleError):
        make_example(circle, "Hi")
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("schema", [TREE, BUSH])
def test_recursion_ends_after_a_few_levels(schema: dict[str, Any]) -> None:
    assert json.dumps(make_example(schema, "Hi")).count("{") < 400


def test_a_small_request_gets_no_giant_answer() -> None:
    thousand = {"type": "array", "minItems": 1000}
    assert len(json.dumps(make_example(thousand, "x" * 10_000_000))) < 5_000_000
    with pytest.raises(NoExampleError):
        make_example({"type": "array", "items": thousand, "minItems": 1000}, "Hi")


@pytest.mark.parametrize(
    "pattern",
    [
        "abc",
        "^abc$",
        r"^\d{3}-\d{4}$",
        r"^(foo|bar)+baz?$",
        r"^(?:[a-f0-9]{8})-(?P<tail>x{2,})$",
        r"[\w.-]+@[\w-]+\.\w{2,4}",
        r"^[^a-z]\S\s.$",
        r"^#([A-Fa-f0-9]{6}|[A-Fa-f0-9]{3})$",
        r"^v?\d+(\.\d+){2}$",
        r"a\.b\\c\[d\]\n",
        "[]]|x",
        r"^[\]a]$",
        r"^[+-]?\d+$",
        "",
        "^(a+)+$",
    ],
)
@pytest.mark.parametrize("least", [0, 1])
def test_the_string_matches_its_pattern(pattern: str, least: int) -> None:
    if pattern == "[]]|x" or (least and pattern == ""):
        with pytest.raises(UnreadablePatternError):
            make_matching(pattern, least, 100)
        return
    text = make_matching(pattern, least, 100)
    assert re.search(pattern, text)
    assert least <= len(text) <= 100


def test_a_pattern_grows_to_the_length_asked_for() -> None:
    assert make_matching("^[a-z]+$", 200, 300) == "a" * 200
    assert make_matching("^a*$", 3, 3) == "aaa"


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        ")",
        "[",
        "*",
        "a{2000000}",
        "((a{900}){900}){900}",
        r"\bx",
        r"(a)\1",
        "(?=a)a",
        "a$b",
        "[^\\S\\s]",
        "(" * 500 + ")" * 500,
        "a{9999}" * 100,
        "(a{9999}){9999999999999}",
    ],
)
def test_a_pattern_that_is_not_understood_is_refused(pattern: str) -> None:
    with pytest.raises(UnreadablePatternError):
        make_matching(pattern, 0, 10_000)
