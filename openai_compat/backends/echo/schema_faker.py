"""A generator of values that a JSON schema accepts, for tool call arguments and structured outputs.

It supports `$ref` within the schema, `allOf`, `anyOf`, `oneOf`, `const`, `enum`, `default`, `examples`, `type` (one
or several), `properties`, `required`, `items`, `prefixItems`, `minItems`, `uniqueItems`, the bounds of numbers,
`multipleOf`, the lengths of strings, `format` and `pattern`. That is all of OpenAI's structured outputs, and what is
common beyond. Other keywords (`not`, `if`, `contains`, ...) are ignored, and a `default` or an example is not checked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from openai_compat.core.turns import TimeSlices

from .pattern_faker import UnsupportedPatternError, generate_match

FORMATS: Final[Mapping[str, str]] = {
    "date": "2024-01-01",
    "date-time": "2024-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "user@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "url": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}

LEAN_DEPTH: Final = 5
"""Depth from which on only required properties are generated, so that recursive schemas end."""
MAX_DEPTH: Final = 24
MAX_ITEMS: Final = 2000
"""Items of one array."""
MAX_WORK: Final = 400_000
"""Steps for one example, about 0.1 s of work. What is visited again counts again."""
SCHEMA_STEPS: Final = 100
"""Steps for a schema, to which its keywords and properties are added, one step each."""
PATTERN_STEPS: Final = 20
"""Steps for a character of a pattern."""
CHARS_PER_STEP: Final = 20
"""Characters of the example, or of a reference, for one step."""
MAX_STRING_CHARS: Final = 10_000
MAX_TEXT_CHARS: Final = 4_000
"""Characters of the text in each string. A long text in many strings would turn a small request into a huge answer."""


class NoExampleError(ValueError):
    """No value was found. The message names the part of the schema that is the reason."""


def generate_example(schema: Any, text: str) -> Any:
    """Return a value that `schema` accepts, the same one for equal arguments.

    Strings without constraints are `text`, or its beginning where it is very long.

    Raises:
        NoExampleError: no accepted value was found, or the schema is too large or not valid.
    """
    try:
        return _ExampleGenerator(schema, text).generate(schema, 0)
    except NoExampleError:
        raise
    except UnsupportedPatternError as error:
        raise NoExampleError(str(error)) from error
    except (TypeError, AttributeError, KeyError, IndexError, ValueError, ArithmeticError) as error:
        raise NoExampleError(f"it is not a valid JSON schema ({error})") from error


class _ExampleGenerator:
    """Generator of one example. `root` is the schema that `$ref` points into."""

    def __init__(self, root: Any, text: str) -> None:
        self.root = root
        self.text = text[:MAX_TEXT_CHARS]
        self.work_left = MAX_WORK
        self.slices = TimeSlices()

    def _spend(self, steps: int) -> None:
        """Count work before it is done, and give other calls a turn from time to time."""
        self.work_left -= steps
        if self.work_left < 0:
            raise NoExampleError("it is too large, or its references form a cycle")
        self.slices.check()

    def generate(self, schema: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise NoExampleError("it nests without end")
        flat = self._flatten(schema)
        for keyword in ("anyOf", "oneOf"):
            if keyword in flat:
                return self._generate_alternative(flat, keyword, depth)
        return self._generate_plain(flat, depth)

    def _flatten(self, schema: Any) -> dict[str, Any]:
        """Return the schema with `$ref` and `allOf` merged into it. Its own keywords take precedence."""
        flat: dict[str, Any] = {}
        pending = [schema]
        while pending:
            part = pending.pop()
            self._spend(SCHEMA_STEPS + _size(part) + _size(flat))
            if part is False:
                raise NoExampleError("a part of it accepts nothing")
            part = {} if part is True else dict(part)
            if "$ref" in part:
                pending.append(self._resolve(part.pop("$ref")))
            pending.extend(part.pop("allOf", ()))
            flat = _merge(part, flat)
        return flat

    def _resolve(self, reference: str) -> Any:
        if not reference.startswith("#"):
            raise NoExampleError(f"'$ref' points outside of it ({reference})")
        self._spend(len(reference) // CHARS_PER_STEP)
        target = self.root
        for step in unquote(reference[1:]).split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            target = target[int(key)] if isinstance(target, list) else target[key]
        return target

    def _generate_alternative(self, schema: dict[str, Any], keyword: str, depth: int) -> Any:
        """Return an example of the first alternative that has one. From `LEAN_DEPTH` on, try simple ones first."""
        alternatives = schema.pop(keyword)
        if depth >= LEAN_DEPTH:
            alternatives = sorted(alternatives, key=_is_nested)
        problem = NoExampleError(f"'{keyword}' has no alternatives")
        for alternative in alternatives:
            try:
                return self.generate({**schema, "allOf": [alternative]}, depth + 1)
            except NoExampleError as error:
                problem = error
        raise problem

    def _generate_plain(self, schema: dict[str, Any], depth: int) -> Any:
        for keyword in ("const", "default"):
            if keyword in schema:
                return self._copied(schema[keyword])
        for keyword in ("enum", "examples"):
            if schema.get(keyword):
                return self._copied(schema[keyword][0])
        type_ = _type_of(schema)
        if type_ == "object":
            return self._generate_object(schema, depth)
        if type_ == "array":
            return self._generate_array(schema, depth)
        self._spend(len(str(schema.get("pattern", ""))) * PATTERN_STEPS)
        return self._copied(_generate_scalar(schema, type_, self.text))

    def _copied(self, value: Any) -> Any:
        """Return a value of the example, whose characters count."""
        self._spend(len(json.dumps(value)) // CHARS_PER_STEP)
        return value

    def _generate_object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = dict.fromkeys(schema.get("required", []))  # a set that keeps its order
        names = [name for name in properties if name in required or depth < LEAN_DEPTH]
        members = {}
        for name in names:
            try:
                members[name] = self.generate(properties[name], depth + 1)
            except NoExampleError:
                if name in required:
                    raise
        additional = schema.get("additionalProperties", True)
        return members | {name: self.generate(additional, depth + 1) for name in required if name not in properties}

    def _generate_array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        prefix = schema.get("prefixItems", [])
        default_length = 1 if depth < LEAN_DEPTH and ("items" in schema or not prefix) else 0
        length = max(schema.get("minItems", 0), len(prefix) or default_length)
        length = min(length, schema.get("maxItems", length))
        if length > MAX_ITEMS:
            raise NoExampleError(f"it needs an array of more than {MAX_ITEMS} items")
        schemas = [*prefix, *[schema.get("items", True)] * (length - len(prefix))][:length]
        items = [self.generate(item, depth + 1) for item in schemas]
        return self._make_unique(items, schema) if schema.get("uniqueItems") else items

    def _make_unique(self, items: list[Any], schema: dict[str, Any]) -> list[Any]:
        """Return distinct items, using other values of their `enum`, higher numbers or numbered texts."""
        choices = self._flatten(schema.get("items") or {}).get("enum", [])
        if choices:
            return list(choices[: len(items)])
        for position, item in enumerate(items):
            if item in items[:position]:
                items[position] = item + position if isinstance(item, int | float) else f"{item} {position + 1}"
        return items


def _size(schema: Any) -> int:
    """Return the number of keywords, and of the members of those that are lists or objects."""
    if not isinstance(schema, Mapping):
        return 0
    return sum(1 + (len(value) if isinstance(value, list | dict) else 0) for value in schema.values())


def _merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema that stands for both, as far as examples need it."""
    merged = {**base, **override}
    if "properties" in base and "properties" in override:
        merged["properties"] = {**base["properties"], **override["properties"]}
    if "required" in base and "required" in override:
        merged["required"] = list(dict.fromkeys([*base["required"], *override["required"]]))
    return merged


def _is_nested(schema: Any) -> bool:
    return isinstance(schema, Mapping) and not schema.keys().isdisjoint(
        {"$ref", "properties", "items", "anyOf", "oneOf", "allOf"}
    )


def _type_of(schema: Mapping[str, Any]) -> str:
    """Return the first type that the schema names, or the one that its other keywords imply."""
    type_ = schema.get("type")
    if isinstance(type_, list):
        return str(type_[0])
    if type_ is not None:
        return str(type_)
    if "properties" in schema or "required" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema or "minItems" in schema:
        return "array"
    if "minimum" in schema or "maximum" in schema or "multipleOf" in schema:
        return "number"
    return "string"


def _generate_scalar(schema: Mapping[str, Any], type_: str, text: str) -> Any:
    match type_:
        case "string":
            return _generate_string(schema, text)
        case "integer" | "number":
            return _generate_number(schema, is_integer=type_ == "integer")
        case "boolean":
            return True
        case "null":
            return None
        case _:
            raise NoExampleError(f"'{type_}' is not a type")


def _generate_number(schema: Mapping[str, Any], is_integer: bool) -> float:
    """Return 1 if the schema accepts it, else the first likely number that it accepts."""
    minimum, maximum = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    above, below = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)
    if isinstance(above, bool):  # draft 4, as OpenAPI 3.0 has it: whether the minimum itself is excluded
        above = minimum if above else -math.inf
    if isinstance(below, bool):
        below = maximum if below else math.inf
    step = schema.get("multipleOf", 1 if is_integer else 0)
    for number in _likely_numbers(max(minimum, above), min(maximum, below), step):
        is_within = minimum <= number <= maximum and above < number < below
        is_whole = float(number).is_integer()
        if is_within and (is_whole or not is_integer) and (not step or (number / step).is_integer()):
            return int(number) if is_whole else number
    raise NoExampleError("no number was found between its bounds")


def _likely_numbers(low: float, high: float, step: float) -> list[float]:
    numbers: list[float] = [1, 0, step]
    for bound in (low, high):
        if math.isfinite(bound):
            multiple = step or 1
            numbers += [bound, *((math.floor(bound / multiple) + offset) * multiple for offset in (-1, 0, 1, 2))]
    if math.isfinite(low + high):
        numbers.append((low + high) / 2)
    return numbers


def _generate_string(schema: Mapping[str, Any], text: str) -> str:
    min_length, max_length = schema.get("minLength", 0), schema.get("maxLength", MAX_STRING_CHARS)
    if min_length > min(max_length, MAX_STRING_CHARS):
        raise NoExampleError(f"it needs a string of at least {min_length} and at most {max_length} characters")
    if "pattern" in schema:
        return generate_match(schema["pattern"], min_length, max_length)
    text = FORMATS.get(schema.get("format", ""), text)
    return _repeat_to(text, min_length)[:max_length]


def _repeat_to(text: str, min_length: int) -> str:
    """Return the text, repeated until it has at least `min_length` characters."""
    text = text if text or not min_length else "a"
    return text if len(text) >= min_length else text * math.ceil(min_length / len(text))
