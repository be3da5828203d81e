"""Marshmallow fields for the models file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING
from dataclasses import fields as dataclass_fields
from datetime import date
from functools import partial
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from marshmallow import Schema, ValidationError, fields
from marshmallow.validate import Range

MAX_SECONDS: Final = 1e9


def about(description: str) -> dict[str, Any]:
    """Return the metadata of a field, which is part of its JSON Schema."""
    return {"description": description}


class Text(fields.String):
    """String. The error for another scalar says what YAML reads it as."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        kind = kind_of_scalar(value)
        if kind is not None and self.error_messages["invalid"] == fields.String.default_error_messages["invalid"]:
            raise ValidationError(f"must be a string, and without quotes it is {kind}. Put it in quotes.")
        return super()._deserialize(value, attr, data, **kwargs)


def kind_of_scalar(value: object) -> str | None:
    """Return what a scalar without quotes was read as, or None for a string, a list or a mapping."""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    return "a date" if isinstance(value, date) else None


def text(description: str, **options: Any) -> Text:
    """Return a field for a string."""
    return Text(metadata=about(description), **options)


def number(description: str, expected: str = "must be a number of seconds, 0 or more", **options: Any) -> fields.Float:
    """Return a field for a number that is not negative."""
    return fields.Float(
        validate=Range(0, MAX_SECONDS, max_inclusive=False, error=expected),
        error_messages={"invalid": expected, "special": expected},
        metadata=about(description),
        **options,
    )


def whole_number(description: str, expected: str, minimum: int = 0, maximum: int | None = None) -> fields.Integer:
    """Return a field for an integer between two bounds, both included."""
    return fields.Integer(
        strict=True,
        validate=Range(minimum, maximum, error=expected),
        error_messages={"invalid": expected},
        metadata=about(description),
    )


class Switch(fields.Boolean):
    """`true` or `false`."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid")
        return value


class Word(fields.Field[Any]):
    """One of a few words. `also` maps further accepted values to what they stand for."""

    def __init__(self, description: str, *words: str, also: Mapping[Any, str | None] | None = None) -> None:
        super().__init__(metadata=about(description))
        self.words = words
        self.meanings: dict[Any, str | None] = {**{word: word for word in words}, **(also or {})}

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if isinstance(value, str | bool) and value in self.meanings:
            return self.meanings[value]
        raise ValidationError(f"must be {' or '.join(self.words)}")


class Table(fields.Dict):
    """Mapping, which may be empty in the form of an empty list."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        return super()._deserialize(value or {}, attr, data, **kwargs)  # type: ignore[no-untyped-call]


class Shorthand(fields.Nested):
    """Mapping that may be written as the value of its main key. An example is `timeout: 30`."""

    def __init__(self, schema: type[Schema], key: str, description: str = "") -> None:
        super().__init__(schema, metadata=about(description))
        self.key = key

    def _deserialize(self, value: Any, attr: Any, data: Any, partial: Any = None, **kwargs: Any) -> Any:
        if isinstance(value, dict):
            return super()._deserialize(value, attr, data, partial, **kwargs)
        field = self.schema.fields[self.key]
        return {field.attribute or self.key: field.deserialize(value)}


class Names(fields.List[str]):
    """List of model names without repetitions, or a single name."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        names: list[Any] = super()._deserialize([value] if isinstance(value, str) else value, attr, data, **kwargs)
        check_unique(names)
        return tuple(names)


class Weights(fields.List[Any]):
    """Targets of a load-balanced model. They are loaded as `{name: weight}`.

    The forms are `[a, b]`, `[{model: a, weight: 3}, b]` and `{a: 3, b: 1}`.
    """

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if isinstance(value, dict):
            value = [{"model": name, "weight": weight} for name, weight in value.items()]
        targets: list[Any] = super()._deserialize(value, attr, data, **kwargs)
        check_unique([target["model"] for target in targets])
        weights = {target["model"]: target.get("weight", 1.0) for target in targets}
        if not any(weights.values()):
            raise ValidationError("must have a weight above 0")
        return weights


def check_unique(names: list[Any]) -> None:
    """Raise ValidationError if a name is repeated."""
    if len(set(names)) < len(names):
        raise ValidationError("names a model twice")


def option_fields(options: type[Any]) -> dict[str, fields.Field[Any]]:
    """Return a field for each option of a backend kind.

    An annotation without a field of its own, such as a union of two types, accepts every value.
    """
    try:
        annotations = get_type_hints(options)
    except NameError:  # the kind's module imports a name for type checkers only
        annotations = {}
    found = {}
    for option in dataclass_fields(options):
        field = found[option.name] = _to_field(annotations.get(option.name))
        field.required = option.default is MISSING and option.default_factory is MISSING
        field.metadata |= option.metadata
    return found


def _to_field(annotation: Any) -> fields.Field[Any]:
    arguments = [argument for argument in get_args(annotation) if argument not in (NoneType, ...)]
    origin = get_origin(annotation) or annotation
    if origin is Literal and all(isinstance(word, str) for word in arguments):
        return Word("", *arguments)
    if NoneType in get_args(annotation) and len(arguments) == 1:
        return _to_field(arguments[0])
    if origin in (list, tuple, set, frozenset):
        return fields.List(_to_field(arguments[0] if arguments else None))
    simple: dict[Any, Callable[[], fields.Field[Any]]] = {
        str: Text,
        bool: Switch,
        int: partial(fields.Integer, strict=True),
        float: fields.Float,
        dict: fields.Dict,
        Mapping: fields.Dict,
    }
    return simple.get(origin, fields.Raw)()
