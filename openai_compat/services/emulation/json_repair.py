"""Tolerant reading of JSON that a model wrote as text, and the repair of what models often get wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from openai_compat.core.large_json import has_too_many_values
from openai_compat.core.turns import TimeSlices

from .schema_check import References, has_type, types_of

MAX_DEPTH: Final = 32
"""Levels of a value that are repaired. Deeper ones stay as they are."""
MAX_MISSING: Final = 3
"""Closing braces at the end that small models forget."""
_FENCE: Final = re.compile(r"\A\s*```\w*\s*\n?(.*?)(?:```\s*)?\Z", re.DOTALL)
_TRAILING_COMMA: Final = re.compile(r'("(?:[^"\\]|\\.)*+(?:"|\\?\Z))|,(?=\s*[}\]])', re.DOTALL)
"""A string, which stays as it is, or a comma in front of a closing bracket."""


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_SPACE: Final = re.compile(r"\s*")
_DECODER: Final = json.JSONDecoder(strict=False, parse_constant=_refuse_constant)


def read_json(text: str) -> Any:
    """Return the JSON value that a text begins with, without a fence around it.

    Line breaks within strings, trailing commas and missing closing braces are repaired.

    Raises:
        ValueError: there is no such value.
    """
    fenced = _FENCE.match(text)
    inner = (fenced[1] if fenced else text).strip()
    if has_too_many_values(inner.encode("utf-8", "surrogatepass")):
        raise ValueError("the text has too many values")
    without_commas = _TRAILING_COMMA.sub(lambda found: found[1] or "", inner)
    closed = [without_commas + "}" * missing for missing in range(MAX_MISSING + 1)]
    decode = TimeSlices().checked(_decode)
    for candidate in (inner, *closed):
        try:
            return decode(candidate)
        except (ValueError, RecursionError):
            continue
    raise ValueError("the text is not JSON")


def end_of_value(text: str, start: int) -> int:
    """Return the end of the valid JSON value at `start`, behind white space. Without one, return `start`."""
    space = _SPACE.match(text, start)
    try:
        return _DECODER.raw_decode(text, space.end() if space else start)[1]
    except (ValueError, RecursionError):
        return start


def _decode(text: str) -> Any:
    """Return the value of a text that has nothing but closing braces behind it."""
    value, end = _DECODER.raw_decode(text)
    if text[end:].strip(" \t\r\n}]"):
        raise ValueError("there is text behind the value")
    return value


def repair_value(value: Any, schema: Any) -> Any:
    """Return a value with its parts in the types that the schema names, where their meaning is beyond doubt.

    A number within quotes becomes a number, a number in place of a string becomes one, and a null in place of an
    optional property is left out.

    Raises:
        Violation: the schema refers to itself.
    """
    return _Repair(schema).repair(value, schema, 0)


class _Repair:
    """One repair. `root` is the schema that `$ref` points into."""

    def __init__(self, root: Any) -> None:
        self._references = References(root)
        self._types: dict[int, set[str]] = {}
        self._slices = TimeSlices()

    def repair(self, value: Any, schema: Any, depth: int) -> Any:
        self._slices.check()
        schema = self._references.resolve(schema)
        if depth > MAX_DEPTH or not isinstance(schema, Mapping):
            return value
        value = _to_type(value, self._types_of(schema))
        if isinstance(value, dict):
            return self._repair_object(value, schema, depth)
        if isinstance(value, list) and isinstance(schema.get("items"), Mapping):
            return [self.repair(item, schema["items"], depth + 1) for item in value]
        return value

    def _types_of(self, schema: Mapping[str, Any]) -> set[str]:
        """Return the types that a schema or its alternatives name. Each schema is read once, as it may be long."""
        if id(schema) not in self._types:
            self._types[id(schema)] = types_of(schema) or self._types_of_alternatives(schema)
        return self._types[id(schema)]

    def _types_of_alternatives(self, schema: Mapping[str, Any]) -> set[str]:
        """Return the types of a schema's alternatives, or an empty set if one of them names none."""
        lists = (schema.get(keyword) for keyword in ("anyOf", "oneOf"))
        nested = [self._references.resolve(item) for items in lists if isinstance(items, list) for item in items]
        named: list[set[str]] = [types_of(item) if isinstance(item, Mapping) else set() for item in nested]
        return {name for names in named for name in names} if all(named) else set()

    def _repair_object(self, value: dict[str, Any], schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        known = schema.get("properties")
        if not isinstance(known, Mapping):
            return value
        needed = schema.get("required")
        required = {key for key in needed if isinstance(key, str)} if isinstance(needed, list) else set()
        kept = {
            key: part
            for key, part in value.items()
            if part is not None or key not in known or key in required
            or _allows_null(self._references.resolve(known[key]))
        }  # fmt: skip
        return {key: self.repair(part, known.get(key, {}), depth + 1) for key, part in kept.items()}


def to_json_text(value: Any) -> str:
    """Return the JSON of a value that a model wrote, for the client.

    Raises:
        ValueError: a number has no JSON, since it is infinite.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _allows_null(schema: Any) -> bool:
    types = types_of(schema) if isinstance(schema, Mapping) else set()
    return not types or "null" in types


def _to_type(value: Any, types: set[str]) -> Any:
    """Return the value in one of the types, or unchanged if that is not possible."""
    if not types or any(has_type(value, type_) for type_ in types):
        return value
    if isinstance(value, str):
        try:
            parsed = _decode(value)
        except (ValueError, RecursionError):
            return value
        return parsed if any(has_type(parsed, type_) for type_ in types) else value
    return json.dumps(value) if "string" in types and isinstance(value, bool | int | float) else value
