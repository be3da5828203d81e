"""JSON Schema of the models file, for editors and other tools. It is generated from the marshmallow schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from marshmallow import INCLUDE, Schema, fields
from marshmallow.validate import NoneOf, Range

from openai_compat.backends.registry import KINDS, load_backend_class

from .aliases import SECTION
from .fields import Names, Shorthand, Weights, Word
from .model_schema import AliasSchema, ModelSchema, schema_of
from .strict_schema import StrictSchema

HUGGINGFACE: Final = "huggingface"
"""Kind of a model with `hf_repo` and without `kind`."""
JsonSchema = dict[str, Any]
TYPES: Final[Mapping[type[fields.Field[Any]], JsonSchema]] = {
    fields.String: {"type": "string"},
    fields.Integer: {"type": "integer"},
    fields.Float: {"type": "number"},
    fields.Boolean: {"type": "boolean"},
    fields.Dict: {"type": "object"},
}
COMMON: Final = "common"
"""Definition of the keys that all kinds share, and of models of a third-party kind."""


def models_json_schema() -> JsonSchema:
    """Return the JSON Schema of a models file, which is a list of models or a mapping with `models` and more."""
    common = _of_schema(ModelSchema(unknown=INCLUDE))
    references = {key: {"$ref": f"#/definitions/{COMMON}/properties/{key}"} for key in common["properties"]}
    kinds = {kind: _of_schema(schema_of(load_backend_class(kind))) for kind in sorted(KINDS)}
    for kind in kinds.values():
        kind["properties"] |= references
    models = {"type": "array", "minItems": 1, "items": {"$ref": "#/definitions/model"}}
    profiles = {"type": "object", "additionalProperties": references["profile"]}
    aliases = {"type": "object", "additionalProperties": {"type": "string"}}
    sections = {
        "type": "object",
        "properties": {"models": models, "profiles": profiles, SECTION: aliases},
        "required": ["models"],
        "additionalProperties": False,
    }
    alias = _of_schema(AliasSchema())
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Models file of openai-compat",
        "anyOf": [models, sections],
        "definitions": {"model": _model(), "alias": alias, COMMON: common, **kinds},
    }


def _model() -> JsonSchema:
    """Return the schema that chooses the definition of an alias, or of the model's kind."""
    is_local = {"anyOf": [_is_kind(HUGGINGFACE), {"required": ["hf_repo"], "not": {"required": ["kind"]}}]}
    conditions = {kind: is_local if kind == HUGGINGFACE else _is_kind(kind) for kind in sorted(KINDS)}
    conditions[COMMON] = {"properties": {"kind": {"pattern": ":"}}, "required": ["kind"]}
    return {
        "type": "object",
        "if": {"required": ["targets"]},
        "then": {"$ref": "#/definitions/alias"},
        "else": {
            "anyOf": [{"required": ["kind"]}, {"required": ["hf_repo"]}],
            "properties": {"kind": {"anyOf": [{"enum": sorted(KINDS)}, {"pattern": ":"}]}},
            "allOf": [
                {"if": condition, "then": {"$ref": f"#/definitions/{kind}"}} for kind, condition in conditions.items()
            ],
        },
    }


def _is_kind(kind: str) -> JsonSchema:
    return {"properties": {"kind": {"const": kind}}, "required": ["kind"]}


def _of_schema(schema: Schema) -> JsonSchema:
    properties = {key: _of_field(field) for key, field in schema.fields.items()}
    renamed = schema.renamed if isinstance(schema, StrictSchema) else {}
    for old, new in renamed.items():
        properties[old] = {**properties[new], "description": f"Former name of `{new}`.", "deprecated": True}
    required = [key for key, field in schema.fields.items() if field.required]
    return {
        "type": "object",
        "properties": properties,
        **({"required": required} if required else {}),
        "additionalProperties": schema.unknown == INCLUDE,
    }


def _of_field(field: fields.Field[Any]) -> JsonSchema:
    found = {**_value_of(field), **{key: value for key, value in field.metadata.items() if value}}
    for validator in field.validators:
        if isinstance(validator, Range):
            limits = {"minimum": validator.min, "maximum": validator.max}
            found |= {key: limit for key, limit in limits.items() if limit is not None}
        elif isinstance(validator, NoneOf):
            found["not"] = {"enum": list(validator.iterable)}
    return found


def _value_of(field: fields.Field[Any]) -> JsonSchema:
    """Return the schema of a field's value, without what its validators require."""
    if isinstance(field, Word):
        return {"enum": list(field.meanings)}
    if isinstance(field, Shorthand):
        return {"anyOf": [_of_field(field.schema.fields[field.key]), _of_schema(field.schema)]}
    if isinstance(field, fields.Nested):
        return _of_schema(field.schema)
    if isinstance(field, fields.List):
        items = {"type": "array", "items": _of_field(field.inner)}
        if isinstance(field, Weights):
            return {"anyOf": [{**items, "minItems": 1}, {"type": "object", "additionalProperties": {"type": "number"}}]}
        return {"anyOf": [{"type": "string"}, items]} if isinstance(field, Names) else items
    return next((dict(schema) for type_, schema in TYPES.items() if isinstance(field, type_)), {})
