"""Makes a value that a JSON schema accepts: the arguments of a made-up tool call, a made-up structured answer.

Understood are `$ref` within the schema, `allOf`, `anyOf`, `oneOf`, `const`, `enum`, `default`, `examples`, `type` (one
or several), `properties`, `required`, `items`, `prefixItems`, `minItems`, `uniqueItems`, the bounds of numbers,
`multipleOf`, the lengths of strings, `format` and `pattern`: all of OpenAI's structured outputs, and what is usual
beyond. Other keywords (`not`, `if`, `contains`, ...) are not looked at; a `default` or an example is taken on trust.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from .pattern_faker import UnreadablePatternError, make_matching

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
"""From this depth on only what is required is made, so that recursive schemas end."""
MAX_DEPTH: Final = 24
MAX_SCHEMAS: Final = 2000
"""How many schemas are looked at for one example, the same one again and again included."""
MAX_STRING_CHARS: Final = 10_000
MAX_TEXT_CHARS: Final = 4_000
"""How much of the text goes into each string; a long text in many strings would make a giant of a small request."""


class NoExampleError(ValueError):
    """No value was found; the message says what in the schema is in the way."""


def make_example(schema: Any, text: str) -> Any:
    """A value that `schema` accepts, the same for equal arguments; strings that may be anything are `text`, or its
    beginning where it is very long.

    Raises:
        NoExampleError: the schema accepts nothing that could be found, is too large, or is not a JSON schema.
    """
    try:
        return _Maker(schema, text).make(schema, 0)
    except NoExampleError:
        raise
    except UnreadablePatternError as error:
        raise NoExampleError(str(error)) from error
    except (TypeError, AttributeError, KeyError, IndexError, ValueError, ArithmeticError) as error:
        raise NoExampleError(f"it is not a valid JSON schema ({error})") from error


class _Maker:
    """Makes one example; `root` is what `$ref` points into."""

    def __init__(self, root: Any, text: str) -> None:
        self.root = root
        self.text = text[:MAX_TEXT_CHARS]
        self.schemas_left = MAX_SCHEMAS

    def make(self, schema: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise NoExampleError("it nests without an end")
        flat = self._flatten(schema)
        for keyword in ("anyOf", "oneOf"):
            if keyword in flat:
                return self._make_one_of(flat, keyword, depth)
        return self._make_plain(flat, depth)

    def _flatten(self, schema: Any) -> dict[str, Any]:
        """The schema with its `$ref` and its `allOf` put in their place; what stands beside them counts first."""
        flat: dict[str, Any] = {}
        pending = [schema]
        while pending:
            self.schemas_left -= 1
            if self.schemas_left < 0:
                raise NoExampleError("it is too large, or its references go round in a circle")
            part = pending.pop()
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
        target = self.root
        for step in unquote(reference[1:]).split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            target = target[int(key)] if isinstance(target, list) else target[key]
        return target

    def _make_one_of(self, schema: dict[str, Any], keyword: str, depth: int) -> Any:
        """The first alternative that has an example; when it is getting deep, the simplest."""
        alternatives = schema.pop(keyword)
        if depth >= LEAN_DEPTH:
            alternatives = sorted(alternatives, key=_is_nested)
        problem = NoExampleError(f"'{keyword}' has no alternatives")
        for alternative in alternatives:
            try:
                return self.make({**schema, "allOf": [alternative]}, depth + 1)
            except NoExampleError as error:
                problem = error
        raise problem

    def _make_plain(self, schema: dict[str, Any], depth: int) -> Any:
        for keyword in ("const", "default"):
            if keyword in schema:
                return schema[keyword]
        for keyword in ("enum", "examples"):
            if schema.get(keyword):
                return schema[keyword][0]
        type_ = _type_of(schema)
        if type_ == "object":
            return self._make_object(schema, depth)
        if type_ == "array":
            return self._make_array(schema, depth)
        return _make_scalar(schema, type_, self.text)

    def _make_object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = dict.fromkeys(schema.get("required", []))  # a set that keeps its order
        names = [name for name in properties if name in required or depth < LEAN_DEPTH]
        made = {}
        for name in names:
            try:
                made[name] = self.make(properties[name], depth + 1)
            except NoExampleError:
                if name in required:
                    raise
        others = schema.get("additionalProperties", True)
        return made | {name: self.make(others, depth + 1) for name in required if name not in properties}

    def _make_array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        first = schema.get("prefixItems", [])
        usual = 1 if depth < LEAN_DEPTH and ("items" in schema or not first) else 0
        length = max(schema.get("minItems", 0), len(first) or usual)
        length = min(length, schema.get("maxItems", length))
        if length > MAX_SCHEMAS:
            raise NoExampleError(f"it needs an array of more than {MAX_SCHEMAS} items")
        schemas = [*first, *[schema.get("items", True)] * (length - len(first))][:length]
        items = [self.make(item, depth + 1) for item in schemas]
        return self._make_unique(items, schema) if schema.get("uniqueItems") else items

    def _make_unique(self, items: list[Any], schema: dict[str, Any]) -> list[Any]:
        """Tells equal items apart: by the other values of their `enum`, by counting on, by a number at the end."""
        choices = self._flatten(schema.get("items") or {}).get("enum", [])
        if choices:
            return list(choices[: len(items)])
        for position, item in enumerate(items):
            if item in items[:position]:
                items[position] = item + position if isinstance(item, int | float) else f"{item} {position + 1}"
        return items


def _merge(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Both schemas at once, as far as examples need it."""
    merged = {**base, **more}
    if "properties" in base and "properties" in more:
        merged["properties"] = {**base["properties"], **more["properties"]}
    if "required" in base and "required" in more:
        merged["required"] = list(dict.fromkeys([*base["required"], *more["required"]]))
    return merged


def _is_nested(schema: Any) -> bool:
    return isinstance(schema, Mapping) and not schema.keys().isdisjoint(
        {"$ref", "properties", "items", "anyOf", "oneOf", "allOf"}
    )


def _type_of(schema: Mapping[str, Any]) -> str:
    """The type, the first of several, or the one that the other keywords speak of."""
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


def _make_scalar(schema: Mapping[str, Any], type_: str, text: str) -> Any:
    match type_:
        case "string":
            return _make_string(schema, text)
        case "integer" | "number":
            return _make_number(schema, is_whole=type_ == "integer")
        case "boolean":
            return True
        case "null":
            return None
        case _:
            raise NoExampleError(f"'{type_}' is not a type")


@dataclass(frozen=True, slots=True)
class _NumberRule:
    """What a schema asks of a number; `step` 0 stands for any."""

    least: float
    above: float
    most: float
    below: float
    step: float

    def accepts(self, number: float) -> bool:
        is_step = not self.step or (number / self.step).is_integer()
        return is_step and self.least <= number <= self.most and self.above < number < self.below


def _number_rule(schema: Mapping[str, Any], is_whole: bool) -> _NumberRule:
    least, most = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    above, below = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)
    if isinstance(above, bool):  # in old drafts it says whether the minimum itself is excluded
        above = least if above else -math.inf
    if isinstance(below, bool):
        below = most if below else math.inf
    return _NumberRule(least, above, most, below, schema.get("multipleOf", 1 if is_whole else 0))


def _make_number(schema: Mapping[str, Any], is_whole: bool) -> float:
    """1 where it may be, else the first of a few likely numbers that the schema accepts."""
    rule = _number_rule(schema, is_whole)
    for number in _likely_numbers(rule):
        is_integer = float(number).is_integer()
        if rule.accepts(number) and (is_integer or not is_whole):
            return int(number) if is_integer else number
    raise NoExampleError("no number was found between its bounds")


def _likely_numbers(rule: _NumberRule) -> list[float]:
    numbers: list[float] = [1, 0, rule.step]
    bounds = [bound for bound in (rule.least, rule.above, rule.most, rule.below) if math.isfinite(bound)]
    for bound in bounds:
        step = rule.step or 1
        numbers += [bound, *((math.floor(bound / step) + more) * step for more in (-1, 0, 1, 2))]
    if len(bounds) > 1:
        numbers.append((max(rule.least, rule.above) + min(rule.most, rule.below)) / 2)
    return numbers


def _make_string(schema: Mapping[str, Any], text: str) -> str:
    least, most = schema.get("minLength", 0), schema.get("maxLength", MAX_STRING_CHARS)
    if least > min(most, MAX_STRING_CHARS):
        raise NoExampleError(f"no string was made of at least {least} and at most {most} characters")
    if "pattern" in schema:
        return make_matching(schema["pattern"], least, most)
    text = FORMATS.get(schema.get("format", ""), text)
    return _at_least(text, least)[:most]


def _at_least(text: str, least: int) -> str:
    """The text, repeated until it is long enough."""
    text = text if text or not least else "a"
    return text if len(text) >= least else text * math.ceil(least / len(text))
