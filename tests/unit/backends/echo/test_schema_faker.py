"""Tests of values generated for a JSON schema, and of the refusal of schemas that cannot be satisfied."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from openai_compat.backends.echo import schema_faker
from openai_compat.backends.echo.schema_faker import NoExampleError, generate_example
from openai_compat.core import turns

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
    example = generate_example(schema, "What is the weather in Paris?")
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(example)
    assert generate_example(schema, "What is the weather in Paris?") == example


def test_strings_without_constraints_are_the_users_text() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {}}}}
    assert generate_example(schema, "Hi") == {"a": "Hi", "b": ["Hi"]}


def test_values_of_the_schema_take_precedence() -> None:
    assert generate_example({"type": "integer", "default": 7}, "") == 7
    assert generate_example({"type": "string", "examples": ["Paris"]}, "Hi") == "Paris"
    assert generate_example({"type": "string", "enum": ["x", "y"]}, "Hi") == "x"


def test_boolean_exclusive_bounds_of_draft_4_are_supported() -> None:
    assert generate_example({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, "") == 2
    assert generate_example({"type": "integer", "minimum": 1, "exclusiveMinimum": False}, "") == 1


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
        generate_example(schema, "Hi")


def test_an_exponential_schema_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the schemas visited for one kilobyte of nested references, which asks for 10**9 values."""
    visits = 0
    flatten = schema_faker._ExampleGenerator._flatten

    def counted(generator: Any, schema: Any) -> dict[str, Any]:
        nonlocal visits
        visits += 1
        return flatten(generator, schema)

    monkeypatch.setattr(schema_faker._ExampleGenerator, "_flatten", counted)
    levels = {
        f"level{number}": {"properties": {f"p{index}": {"$ref": f"#/$defs/level{number + 1}"} for index in range(10)}}
        for number in range(9)
    }
    required = {name: {**level, "required": list(level["properties"])} for name, level in levels.items()}
    with pytest.raises(NoExampleError):
        generate_example({"$ref": "#/$defs/level0", "$defs": {**required, "level9": {"type": "integer"}}}, "Hi")
    alternatives = {"anyOf": [{"properties": {"a": {"$ref": "#"}}, "required": ["a"]}] * 10}
    with pytest.raises(NoExampleError):
        generate_example(alternatives, "Hi")
    circle = {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}
    with pytest.raises(NoExampleError):
        generate_example(circle, "Hi")
    assert visits <= 3 * (schema_faker.MAX_WORK // schema_faker.SCHEMA_STEPS + schema_faker.MAX_DEPTH)


WIDE = {"properties": {str(number): {"type": "string"} for number in range(5000)}}
EXPENSIVE_SCHEMAS = {
    "long patterns": ("generate_match", {"type": "array", "minItems": 1990, "items": {"pattern": "[ab]" * 250}}),
    "many properties": ("_merge", {**WIDE, "allOf": [{"properties": {"a": True}}] * 1500}),
    "many required names": ("_merge", {"required": [*map(str, range(5000))], "allOf": [{"required": ["a"]}] * 1500}),
    "long constants": ("_merge", {"type": "array", "minItems": 1990, "items": {"const": "x" * 1_000_000}}),
}


@pytest.mark.parametrize(("step", "schema"), EXPENSIVE_SCHEMAS.values(), ids=EXPENSIVE_SCHEMAS)
def test_expensive_schemas_are_refused_after_few_steps(
    step: str, schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    function = getattr(schema_faker, step)
    monkeypatch.setattr(schema_faker, step, lambda *values: calls.append(step) or function(*values))
    with pytest.raises(NoExampleError, match="too large"):
        generate_example(schema, "Hi")
    assert 0 < len(calls) <= 100


def test_other_calls_get_turns_while_an_example_is_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[float] = []
    monkeypatch.setattr(turns.time, "sleep", taken.append)
    monkeypatch.setattr(schema_faker, "TimeSlices", lambda: turns.TimeSlices(0.0))
    generate_example({"type": "array", "minItems": 500, "items": {"type": "string"}}, "Hi")
    assert len(taken) >= 500


@pytest.mark.parametrize("schema", [TREE, BUSH])
def test_recursion_ends_after_a_few_levels(schema: dict[str, Any]) -> None:
    assert json.dumps(generate_example(schema, "Hi")).count("{") < 400


def test_a_small_request_gets_no_huge_answer() -> None:
    thousand = {"type": "array", "minItems": 1000}
    assert len(json.dumps(generate_example(thousand, "x" * 10_000_000))) < 5_000_000
    with pytest.raises(NoExampleError):
        generate_example({"type": "array", "items": thousand, "minItems": 1000}, "Hi")
