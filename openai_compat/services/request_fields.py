"""Checked access to the fields of a request that is translated, with OpenAI's errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from openai_compat.core.errors import InvalidRequestError

MAX_SHOWN_CHARS: Final = 40


def object_at(value: Any, path: str) -> Mapping[str, Any]:
    """Return `value` if it is an object.

    Raises:
        InvalidRequestError
    """
    if not isinstance(value, dict):
        raise InvalidRequestError(f"Invalid type for '{path}': expected an object.", param=path, code="invalid_type")
    return value


def text_at(value: Mapping[str, Any], key: str, path: str) -> str:
    """Return the text of a required field.

    Raises:
        InvalidRequestError: it is missing or no text.
    """
    param = f"{path}.{key}" if path else key
    text = value.get(key)
    if text is None:
        raise missing_parameter(param)
    if not isinstance(text, str):
        raise InvalidRequestError(f"Invalid type for '{param}': expected a string.", param=param, code="invalid_type")
    return text


def list_at(value: Mapping[str, Any], key: str, path: str) -> Sequence[Any]:
    """Return the list of an optional field, which is empty if the field is missing.

    Raises:
        InvalidRequestError: it is no list.
    """
    found = value.get(key)
    if found is None:
        return ()
    if not isinstance(found, list):
        param = f"{path}.{key}"
        raise InvalidRequestError(f"Invalid type for '{param}': expected an array.", param=param, code="invalid_type")
    return found


def missing_parameter(param: str) -> InvalidRequestError:
    """Return the error for a required parameter that is absent."""
    return InvalidRequestError(
        f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
    )


def invalid_value(value: str, param: str, expected: Sequence[str]) -> InvalidRequestError:
    """Return the error for a word that is none of those expected."""
    words = ", ".join(f"'{word}'" for word in expected)
    return InvalidRequestError(
        f"Invalid value for '{param}': '{value[:MAX_SHOWN_CHARS]}'. Supported values are: {words}.",
        param=param,
        code="invalid_value",
    )


def unsupported(param: str, reason: str) -> InvalidRequestError:
    """Return the error for a parameter that a translated call cannot honour."""
    return InvalidRequestError(f"Unsupported parameter: '{param}' {reason}.", param=param, code="unsupported_parameter")
