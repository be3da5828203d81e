"""Base class of the request schemas, and validation errors in OpenAI's words.

The schemas validate types and structure. They are marshmallow schemas, and apispec generates the documentation from
them. They differ from plain ones in three ways. The body is passed on unchanged, because a gateway must not rewrite it.
Only the fields that are present cost time. Validation stops at the first problem, because OpenAI's error has only one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError
from marshmallow.fields import Field

TYPE_NAMES: Mapping[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a decimal number",
    bool: "a boolean",
    type(None): "null",
    list: "an array",
    dict: "an object",
}
"""Names of the JSON types in OpenAI's error messages."""


def name_of_type(value: object) -> str:
    """Return the name of a JSON value's type in OpenAI's error messages."""
    return TYPE_NAMES[type(value)]


class FieldError(ValidationError):
    """A validation problem and its dotted path, such as `messages[0].content`. The path of the body is empty.

    `sentence` consists of `before`, the quoted path, and `after`.
    """

    def __init__(self, before: str, after: str, code: str | None, path: str = "") -> None:
        super().__init__(f"{before} value{after}")
        self.before, self.after, self.code, self.path = before, after, code, path

    @property
    def sentence(self) -> str:
        """The error message."""
        return f"{self.before} '{self.path}'{self.after}" if self.path else f"{self.before} body{self.after}"

    def below(self, step: str | int) -> FieldError:
        """Return the same problem with `step`, a key or an index, in front of its path."""
        name = f"[{step}]" if type(step) is int else str(step)
        dot = "." if self.path and not self.path.startswith("[") else ""
        return FieldError(self.before, self.after, self.code, f"{name}{dot}{self.path}")


def missing_error(name: str) -> FieldError:
    return FieldError("Missing required parameter:", ".", "missing_required_parameter", name)


def type_error(expected: str, value: object) -> FieldError:
    after = f": expected {expected}, but got {name_of_type(value)} instead."
    return FieldError("Invalid type for", after, "invalid_type")


def empty_array_error() -> FieldError:
    after = ": empty array. Expected an array with minimum length 1, but got an empty array instead."
    return FieldError("Invalid", after, "empty_array")


def long_array_error(limit: int, length: int) -> FieldError:
    expected = f"Expected an array with maximum length {limit}, but got an array with length {length} instead."
    return FieldError("Invalid", f": array too long. {expected}", "array_above_max_length")


def empty_string_error() -> FieldError:
    after = ": empty string. Expected a string with minimum length 1, but got an empty string instead."
    return FieldError("Invalid", after, "empty_string")


def to_field_error(error: ValidationError) -> FieldError:
    """Return the first problem in `error`, which may come from one of marshmallow's own validators."""
    if isinstance(error, FieldError):
        return error
    messages: Any = error.messages
    steps: list[str | int] = []
    while isinstance(messages, Mapping):
        step, messages = next(iter(messages.items()))
        if step != "_schema":
            steps.append(step)
    text = messages[0] if isinstance(messages, Sequence) and not isinstance(messages, str) else messages
    problem = FieldError("Invalid value for", f": {text}", "invalid_value")
    for step in reversed(steps):
        problem = problem.below(step)
    return problem


class RequestSchema(Schema):
    """Schema of an object in a request. It accepts unknown keys, and null for every field that is not required."""

    class Meta:
        unknown = INCLUDE

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._required = tuple(name for name, field in self.load_fields.items() if field.required)

    def on_bind_field(self, field_name: str, field_obj: Field[Any]) -> None:
        field_obj.allow_none = field_obj.allow_none or not field_obj.required

    def load(self, data: Any, **options: Any) -> Any:
        """Return `data` itself if it is valid.

        Raises:
            FieldError: the first problem. Missing fields come first, the others follow in the order of the keys.
        """
        if type(data) is not dict:
            raise type_error("an object", data)
        for name in self._required:
            if name not in data:
                raise missing_error(name)
        declared = self.load_fields
        for name, value in data.items():
            field = declared.get(name)
            if field is not None:
                try:
                    field.deserialize(value, name, data)
                except ValidationError as error:
                    raise to_field_error(error).below(name) from None
        self.check(data)
        return data

    def check(self, data: dict[str, Any]) -> None:
        """Check conditions on several fields, which are valid by themselves. Raise `FieldError` for a problem."""
