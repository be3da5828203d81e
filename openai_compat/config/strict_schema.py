"""Base of the marshmallow schemas of the models file, and the sentences that their errors become."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, ClassVar, Final

from marshmallow import RAISE, Schema, ValidationError, fields, pre_load, validates_schema

PREDICATES: Final = {
    "Not a valid string.": "must be a string",
    "Not a valid integer.": "must be a whole number",
    "Not a valid number.": "must be a number",
    "Special numeric values (nan or infinity) are not permitted.": "must be a number",
    "Not a valid boolean.": "must be true or false",
    "Not a valid mapping type.": "must be a mapping",
    "Not a valid list.": "must be a list",
    "Field may not be null.": "must have a value",
    "Missing data for required field.": "is missing",
}
"""Marshmallow's messages, as they follow the name of a key."""


class StrictSchema(Schema):
    """Mapping without unknown keys, in which null means absent. `renamed` maps former keys to the present ones."""

    renamed: ClassVar[Mapping[str, str]] = {}
    unknown_key: ClassVar[str] = "has the unknown key '{key}'. {hint}"

    class Meta:
        unknown = RAISE

    @pre_load
    def use_present_keys(self, data: Any, **_: Any) -> dict[str, Any]:
        """Replace former keys and drop nulls."""
        if not isinstance(data, dict):
            raise ValidationError("must be a mapping")
        return {self.renamed.get(key, key): value for key, value in data.items() if value is not None}

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def refuse_both_keys(self, _data: Any, original: Mapping[str, Any], **_: Any) -> None:
        """Raise ValidationError if a former key stands beside the present one."""
        both = [(old, new) for old, new in self.renamed.items() if old in original and new in original]
        if both:
            raise ValidationError([f"has {old} and {new}, which mean the same. Remove {old}." for old, new in both])

    def handle_error(self, error: ValidationError, data: Any, *, many: bool, **_: Any) -> None:
        """Report errors under the keys that `data` has, suggest a known key for each unknown one, drop wrong values."""
        messages: Any = error.messages
        valid: Any = error.valid_data or {}
        error.valid_data = {key: value for key, value in valid.items() if key not in messages}
        for key in sorted((key for key in messages if key not in self.fields and key != "_schema"), key=str):
            del messages[key]
            similar = get_close_matches(str(key), self.fields, n=1)
            hint = f"Did you mean '{similar[0]}'?" if similar else f"Known keys are {', '.join(sorted(self.fields))}."
            messages.setdefault("_schema", []).append(self.unknown_key.format(key=key, hint=hint))
        for old, new in self.renamed.items():
            if new in messages and old in data:
                messages[old] = messages.pop(new)

    def former_keys(self, data: Mapping[str, Any] | None = None, path: str = "") -> Iterator[tuple[str, str]]:
        """Yield each former key that `data` contains with the present one, or all of them without `data`."""
        for old, new in self.renamed.items():
            if data is None or old in data:
                yield f"{path}{old}", f"{path}{new}"
        for key, field in self.fields.items():
            nested = None if data is None else data.get(key)
            if isinstance(field, fields.Nested) and (data is None or isinstance(nested, dict)):
                yield from field.schema.former_keys(nested, f"{path}{key}.")  # type: ignore[attr-defined]


def to_sentences(subject: str, messages: Mapping[Any, Any], path: str = "") -> Iterator[str]:
    """Yield a sentence for each error.

    An example is "model 'a': cooldown.seconds must be a number".
    """
    for key, found in messages.items():
        place = path if key == "_schema" else f"{path}.{key}" if path else str(key)
        if isinstance(found, dict):
            yield from to_sentences(subject, found, place)
            continue
        for message in found:
            predicate = PREDICATES.get(message, message[:1].lower() + message[1:])
            yield f"{subject}: {place} {predicate}" if place else f"{subject} {predicate}"
