"""Strict marshmallow fields for requests, which accept exactly their JSON types and return the value unchanged.

A string such as `"0.5"` is not a number, and neither `true` nor `5.0` is an integer. OpenAI rejects them too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, missing

from openai_compat.core.turns import give_turn

from .base import empty_array_error, empty_string_error, long_array_error, to_field_error, type_error

ITEMS_PER_TURN = 256
"""Items of arrays that are validated before other greenlets get a turn, about 5 ms of work."""
_checked_items = count(1)
"""Counter of the items of all arrays of all requests, so that arrays within arrays need none of their own."""


def _count_item() -> None:
    """Give a turn after every `ITEMS_PER_TURN` items."""
    if not next(_checked_items) % ITEMS_PER_TURN:
        give_turn()


class Strict:
    """Mixin for marshmallow fields, with the accepted types, and the description and example for the documentation."""

    accepts: ClassVar[frozenset[type]] = frozenset()
    expected: str = ""
    allow_none: bool
    validators: list[Callable[[Any], Any]]

    def __init__(self, *arguments: Any, description: str = "", example: Any = missing, **options: Any) -> None:
        metadata = options.pop("metadata", {})
        if description:
            metadata["description"] = description
        if example is not missing:
            metadata["example"] = example
        super().__init__(*arguments, metadata=metadata, **options)  # type: ignore[call-arg] # of the field class

    def _validate_missing(self, value: Any) -> None:
        if value is None and not self.allow_none:
            raise type_error(self.expected, None)
        if value is missing:
            super()._validate_missing(value)  # type: ignore[misc] # of the field class

    def _deserialize(self, value: Any, attr: str | None, data: Any, **options: Any) -> Any:
        if type(value) not in self.accepts:
            raise type_error(self.expected, value)
        return value

    def _validate(self, value: Any) -> None:
        """Skip marshmallow's validation of fields without validators, as it combines the validators for each value."""
        if self.validators:
            super()._validate(value)  # type: ignore[misc] # of the field class


class String(Strict, fields.String):
    accepts = frozenset({str})
    expected = "a string"


class Integer(Strict, fields.Integer):
    accepts = frozenset({int})
    expected = "an integer"


class Number(Strict, fields.Float):
    accepts = frozenset({int, float})
    expected = "a decimal"


class Boolean(Strict, fields.Boolean):
    accepts = frozenset({bool})
    expected = "a boolean"


class AnyObject(Strict, fields.Dict):
    """An object with any keys."""

    accepts = frozenset({dict})
    expected = "an object"


class Nested(Strict, fields.Nested):
    """An object with a schema."""

    accepts = frozenset({dict})
    expected = "an object"

    def _deserialize(self, value: Any, attr: str | None, data: Any, partial: Any = None, **options: Any) -> Any:
        return self.schema.load(value)


class List(Strict, fields.List[Any]):
    """An array of at least `min_items` and at most `max_items` items of one type."""

    accepts = frozenset({list})
    plurals: ClassVar[dict[type, str]] = {String: "strings", Integer: "integers", Number: "decimals"}

    def __init__(self, inner: Any, *, min_items: int = 0, max_items: int | None = None, **options: Any) -> None:
        super().__init__(inner, **options)
        self.min_items = min_items
        self.max_items = max_items
        self.expected = f"an array of {self.plurals.get(type(self.inner), 'objects')}"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **options: Any) -> Any:
        if type(value) is not list:
            raise type_error(self.expected, value)
        if len(value) < self.min_items:
            raise empty_array_error()
        if self.max_items is not None and len(value) > self.max_items:
            raise long_array_error(self.max_items, len(value))
        self.check_items(value)
        return value

    def check_items(self, items: list[Any]) -> None:
        for index, item in enumerate(items):
            self.check_item(index, item)

    def check_item(self, index: int, item: Any) -> None:
        _count_item()
        try:
            self.inner.deserialize(item)
        except ValidationError as error:
            raise to_field_error(error).below(index) from None


class Messages(List):
    """A conversation.

    Nearly all messages have only a role, a text and perhaps a name. These are valid and skip the schema, which saves
    most of the time.
    """

    def check_items(self, items: list[Any]) -> None:
        for index, item in enumerate(items):
            if not (
                type(item) is dict
                and type(item.get("role")) is str
                and type(item.get("content")) is str
                and (len(item) == 2 or (len(item) == 3 and type(item.get("name")) is str))
            ):
                self.check_item(index, item)


class OneOf(Strict, fields.Field[Any]):
    """One of several fields, chosen by the type of the value."""

    def __init__(self, *alternatives: Any, **options: Any) -> None:
        super().__init__(**options)
        self.alternatives = alternatives
        self._by_type = {accepted: field for field in alternatives for accepted in field.accepts}
        self.expected = "one of " + " or ".join(_without_article(alternatives))

    def _deserialize(self, value: Any, attr: str | None, data: Any, **options: Any) -> Any:
        field = self._by_type.get(type(value))
        if field is None:
            raise type_error(self.expected, value)
        return field.deserialize(value, attr, data)


def _without_article(alternatives: Iterable[Any]) -> Iterable[str]:
    """Yield the names of the types. Only the first has an article ("a string or array of objects"), as with OpenAI."""
    for position, field in enumerate(alternatives):
        yield field.expected.split(" ", 1)[1] if position else field.expected


class PromptInput(Strict, fields.Field[Any]):
    """Input to complete or embed. It is a text, several texts, the token ids of one text, or those of several texts.

    With `allows_empty` a text may be empty.
    """

    expected = "one of a string, array of strings, array of integers, or array of integer arrays"

    def __init__(self, *, allows_empty: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.allows_empty = allows_empty
        self.alternatives = (String(), List(String()), List(Integer()), List(List(Integer())))

    def _deserialize(self, value: Any, attr: str | None, data: Any, **options: Any) -> Any:
        if type(value) is str:
            self._check_text(value)
        elif type(value) is list:
            self._check_list(value)
        else:
            raise type_error(self.expected, value)
        return value

    def _check_text(self, text: str) -> None:
        if not text and not self.allows_empty:
            raise empty_string_error()

    def _check_list(self, inputs: list[Any]) -> None:
        if not inputs:
            raise empty_array_error()
        kind = type(inputs[0])
        if kind is int:
            _check_all(int, "an integer", inputs)
            return
        if kind is list:
            _check_all(list, "an array of integers", inputs)
            _check_each(inputs, _check_tokens)
        else:
            _check_all(str, "a string", inputs)
            _check_each(inputs, self._check_text)


def _check_tokens(tokens: list[Any]) -> None:
    if not tokens:
        raise empty_array_error()
    _check_all(int, "an integer", tokens)


def _check_all(wanted: type, expected: str, items: list[Any]) -> None:
    """Check that all items have the type `wanted`.

    Lists of token ids are long. Their types are compared at once, and one by one only to find the first wrong item.
    """
    if set(map(type, items)) != {wanted}:
        index, item = next((index, item) for index, item in enumerate(items) if type(item) is not wanted)
        raise type_error(expected, item).below(index)


def _check_each(items: list[Any], check: Any) -> None:
    for index, item in enumerate(items):
        _count_item()
        try:
            check(item)
        except ValidationError as error:
            raise to_field_error(error).below(index) from None
