"""Metadata of stored objects, up to 16 pairs of short texts, as in OpenAI's API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from openai_compat.core.errors import InvalidRequestError

MAX_PAIRS: Final = 16
MAX_KEY_LENGTH: Final = 64
MAX_VALUE_LENGTH: Final = 512


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Raise an error for the first problem, in OpenAI's words.

    Raises:
        InvalidRequestError
    """
    if len(metadata) > MAX_PAIRS:
        raise InvalidRequestError(
            f"Invalid 'metadata': too many properties. Expected an object with at most {MAX_PAIRS} properties, but got "
            f"an object with {len(metadata)} properties instead.",
            param="metadata",
            code="object_above_max_properties",
        )
    for key, value in metadata.items():
        _check_length("metadata", key, MAX_KEY_LENGTH, "key")
        if not isinstance(value, str):
            raise InvalidRequestError(
                f"Invalid type for 'metadata.{key}': expected a string.", param=f"metadata.{key}", code="invalid_type"
            )
        _check_length(f"metadata.{key}", value, MAX_VALUE_LENGTH, "string")


def _check_length(param: str, text: str, limit: int, kind: str) -> None:
    if len(text) > limit:
        raise InvalidRequestError(
            f"Invalid '{param}': {kind} too long. Expected a {kind} with maximum length {limit}, but got a {kind} with "
            f"length {len(text)} instead.",
            param=param,
            code="string_above_max_length",
        )


def to_tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the pairs for the database, as JSON because PostgreSQL refuses some characters."""
    return {json.dumps(key): json.dumps(value) for key, value in metadata.items()}
