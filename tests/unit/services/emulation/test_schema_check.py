"""Values that a JSON schema allows or not, compared with the reference implementation."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from openai_compat.services.emulation.schema_check import Violation, check_value

TREE = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    "required": ["value"],
}
NAMED = {"$defs": {"a/b": {"type": "string", "maxLength": 2}}, "items": {"$ref": "#/$defs/a~1b"}, "type": "array"}
SCHEMAS: list[Any] = [
    {}, True, False, {"type": "integer"}, {"type": "number", "exclusiveMinimum": 0, "maximum": 3},
    {"type": ["string", "null"]},
    {"enum": [1, "a", None]}, {"const": True}, {"const": {"a": [1]}},
    {"type": "string", "minLength": 1, "maxLength": 3},
    {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "boolean"}},
    {"prefixItems": [{"type": "integer"}], "items": False},
    {"properties": {"a": {"type": "integer"}}, "additionalProperties": False},
    {"properties": {"a": True}, "additionalProperties": {"type": "string"}, "minProperties": 1},
    {"required": ["a", "b"]}, {"allOf": [{"type": "integer"}, {"minimum": 2}]},
    {"oneOf": [{"type": "integer"}, {"type": "number"}]}, {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    TREE, NAMED,
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, 1, 2, 3, 1.0, 1.5, -1, "", "a", "ab", "abcd", [], [True], [1], [1, 2], ["ab"], ["abc"],
    [True, False, True], {}, {"a": 1}, {"a": [1]}, {"a": "x"}, {"b": 1}, {"a": 1, "b": "x"}, {"a": 1, "b": 2},
    {"value": 1}, {"value": 1, "next": {"value": 2, "next": None}}, {"value": 1, "next": {"value": "2"}},
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_values_are_judged_as_by_the_reference_implementation(schema: Any) -> None:
    judge = jsonschema.Draft202012Validator(schema)
    for value in VALUES:
        try:
            check_value(value, schema)
            is_valid = True
        except Violation:
            is_valid = False
        assert is_valid == judge.is_valid(value), value


def test_a_whole_number_may_have_any_length() -> None:
    check_value(10**400, {"type": "integer"})


def test_a_schema_that_refers_to_itself_has_an_end() -> None:
    with pytest.raises(Violation, match="refers to itself"):
        check_value(1, {"$ref": "#"})
    with pytest.raises(Violation, match="too large"):
        check_value(1, {"anyOf": [{"allOf": [{"$ref": "#"}]}, {"allOf": [{"$ref": "#"}]}]})
    with pytest.raises(Violation, match="refers to itself"):
        check_value(1, {"$ref": "#/a", "a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}})


def test_references_are_followed_to_their_end() -> None:
    schema = {"$ref": "#/a", "a": {"$ref": "#/b"}, "b": {"type": "string"}, "c": {"$ref": "#/a"}}
    check_value("x", schema)
    with pytest.raises(Violation, match="type string"):
        check_value(["x", 1], {**schema, "$ref": "#/d", "d": {"items": {"$ref": "#/c"}}})


@pytest.mark.parametrize("schema", [{"enum": list(range(60_000))}, {"required": ["a"] * 60_000}])
def test_long_lists_count_as_work(schema: Any) -> None:
    """A model's answer may have thousands of parts, each of which would be compared with the whole list."""
    with pytest.raises(Violation, match="too large"):
        check_value({"a": 1}, schema)


@pytest.mark.parametrize("schema", [{"type": 3}, {"properties": []}, {"required": "a"}, {"enum": 1}, {"anyOf": {}}, 7])
def test_a_malformed_schema_allows_what_it_does_not_restrict(schema: Any) -> None:
    check_value({"b": 1}, schema)
