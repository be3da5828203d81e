"""Check of a JSON value against a JSON schema, for values that models wrote and schemas that clients sent.

It knows the keywords that describe arguments of tools. `pattern` and `format` are not checked, because a client's
regular expression may run for hours, and neither are `not`, `if` and `dependentSchemas`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from openai_compat.core.turns import TimeSlices

MAX_STEPS: Final = 50_000
"""Comparisons of a schema with a value, about 0.1 s of work. Nested alternatives can need any number."""
MAX_DEPTH: Final = 100
_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
    "number": lambda value: _is_number(value),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


class Violation(Exception):
    """The first part of a value that its schema does not allow."""


def check_value(value: Any, schema: Any) -> None:
    """Check a value, with turns for other greenlets.

    Raises:
        Violation: the schema does not allow the value, or the comparison takes too long.
    """
    _Check(schema).check(value, schema, "", 0)


def types_of(schema: Mapping[str, Any]) -> set[str]:
    """Return the types that a schema names, or an empty set if it names none."""
    type_ = schema.get("type")
    names = type_ if isinstance(type_, list) else [type_]
    return {name for name in names if isinstance(name, str)}


def has_type(value: Any, type_: str) -> bool:
    """Return True if a value has the type of this name. Unknown types are those of every value."""
    test = _TYPES.get(type_)
    return test is None or test(value)


class References:
    """The references within one schema, each of which is followed once."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._targets: dict[str, Any] = {}

    def resolve(self, schema: Any) -> Any:
        """Return the schema that a `$ref` points to, or the schema itself.

        Raises:
            Violation: the schema refers to itself.
        """
        followed: list[str] = []
        while (reference := _reference_of(schema)) is not None:
            if reference in followed or len(followed) > MAX_DEPTH:
                raise Violation("the schema refers to itself")
            followed.append(reference)
            if reference not in self._targets:
                self._targets[reference] = self._find(reference)
            schema = self._targets[reference]
        for reference in followed:
            self._targets[reference] = schema
        return schema

    def _find(self, reference: str) -> Any:
        schema = self._root
        for step in reference[1:].split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            schema = schema.get(key, {}) if isinstance(schema, Mapping) else {}
        return schema


def _reference_of(schema: Any) -> str | None:
    reference = schema.get("$ref") if isinstance(schema, Mapping) else None
    return reference if isinstance(reference, str) and reference.startswith("#") else None


class _Check:
    """One check. `root` is the schema that `$ref` points into."""

    def __init__(self, root: Any) -> None:
        self._references = References(root)
        self._steps = 0
        self._slices = TimeSlices()

    def check(self, value: Any, schema: Any, path: str, depth: int) -> None:
        schema = self._references.resolve(schema)
        self._count(schema)
        if depth > MAX_DEPTH:
            raise Violation("its schema is too large to be checked")
        if schema is False:
            raise Violation(f"{_at(path)} is not allowed")
        if not isinstance(schema, Mapping):
            return
        _check_plain(value, schema, path)
        self._check_alternatives(value, schema, path, depth)
        for nested, part, name in _parts(value, schema, path):
            self.check(part, nested, name, depth + 1)

    def _count(self, schema: Any) -> None:
        """Count the steps of one schema, whose lists may be long."""
        self._slices.check()
        lists = (schema.get(key) for key in ("enum", "required")) if isinstance(schema, Mapping) else ()
        self._steps += 1 + sum(len(_list(values)) for values in lists)
        if self._steps > MAX_STEPS:
            raise Violation("its schema is too large to be checked")

    def _check_alternatives(self, value: Any, schema: Mapping[str, Any], path: str, depth: int) -> None:
        for nested in _list(schema.get("allOf")):
            self.check(value, nested, path, depth + 1)
        for keyword in ("anyOf", "oneOf"):
            alternatives = _list(schema.get(keyword))
            matches = (self._matches(value, nested, path, depth + 1) for nested in alternatives)
            if alternatives and not (any(matches) if keyword == "anyOf" else sum(matches) == 1):
                raise Violation(f"{_at(path)} matches none of the allowed forms, or several of them")

    def _matches(self, value: Any, schema: Any, path: str, depth: int) -> bool:
        try:
            self.check(value, schema, path, depth)
        except Violation:
            if self._steps > MAX_STEPS:
                raise
            return False
        return True


def _check_plain(value: Any, schema: Mapping[str, Any], path: str) -> None:
    """Check the value without its parts."""
    types = types_of(schema)
    if types and not any(has_type(value, type_) for type_ in types):
        raise Violation(f"{_at(path)} must be of the type {' or '.join(sorted(types))}")
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(choices, list) and not any(_is_equal(value, choice) for choice in choices):
        raise Violation(f"{_at(path)} is none of the allowed values")
    for keyword, size in _sizes(value):
        limit = schema.get(keyword)
        if isinstance(limit, int | float) and _exceeds(keyword, size, limit):
            raise Violation(f"{_at(path)} breaks its {keyword} of {limit}")
    if isinstance(value, dict):
        _check_keys(value, schema, path)


def _check_keys(value: dict[str, Any], schema: Mapping[str, Any], path: str) -> None:
    missing = next((key for key in _list(schema.get("required")) if isinstance(key, str) and key not in value), None)
    if missing is not None:
        raise Violation(f"{_at(_join(path, missing))} is missing")
    if schema.get("additionalProperties") is False and "patternProperties" not in schema:
        known = schema.get("properties")
        extra = next((key for key in value if not (isinstance(known, Mapping) and key in known)), None)
        if extra is not None:
            raise Violation(f"{_at(_join(path, extra))} is not allowed")


def _parts(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[tuple[Any, Any, str]]:
    """Yield the schema, the value and the path of each part of an object or an array."""
    if isinstance(value, dict):
        given = schema.get("properties")
        known: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
        others = {} if "patternProperties" in schema else schema.get("additionalProperties", {})
        for key, part in value.items():
            yield known.get(key, others), part, _join(path, key)
    elif isinstance(value, list):
        first = _list(schema.get("prefixItems"))
        for index, part in enumerate(value):
            nested = first[index] if index < len(first) else schema.get("items", {})
            yield nested, part, f"{path}[{index}]"


def _sizes(value: Any) -> Iterator[tuple[str, float]]:
    """Yield the keywords that limit a value of this type, and what each of them limits."""
    if isinstance(value, str):
        yield from (("minLength", len(value)), ("maxLength", len(value)))
    elif isinstance(value, list):
        yield from (("minItems", len(value)), ("maxItems", len(value)))
    elif isinstance(value, dict):
        yield from (("minProperties", len(value)), ("maxProperties", len(value)))
    elif _is_number(value):
        keywords = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
        yield from ((keyword, value) for keyword in keywords)


def _exceeds(keyword: str, size: float, limit: float) -> bool:
    if keyword.startswith("exclusive"):
        return size <= limit if keyword == "exclusiveMinimum" else size >= limit
    return size < limit if keyword.startswith("min") else size > limit


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_equal(value: Any, choice: Any) -> bool:
    """Return True for equal JSON values. In Python, true equals 1."""
    return bool(value == choice) and isinstance(value, bool) == isinstance(choice, bool)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _at(path: str) -> str:
    return f"'{path}'" if path else "the value"
