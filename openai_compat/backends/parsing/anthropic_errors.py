"""Errors of Anthropic's API, and their translation into OpenAI's types and codes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.core.context_overflow import is_overflow
from openai_compat.core.errors import UpstreamError, UpstreamStatusError
from openai_compat.core.types import JSONObject

from .openai_errors import find_status, retry_headers, to_status_error

CONTEXT_LENGTH_EXCEEDED: Final = "context_length_exceeded"
_OPENAI_NAMES: Final[Mapping[str, tuple[str, str | None]]] = {
    "authentication_error": ("invalid_request_error", "invalid_api_key"),
    "billing_error": ("insufficient_quota", "insufficient_quota"),
    "not_found_error": ("invalid_request_error", "model_not_found"),
    "rate_limit_error": ("rate_limit_error", "rate_limit_exceeded"),
    "request_too_large": ("invalid_request_error", "request_too_large"),
    "api_error": ("server_error", None),
    "overloaded_error": ("server_error", "overloaded"),
    "timeout_error": ("server_error", "timeout"),
}
"""Anthropic's type of an error -> OpenAI's type and code."""


def read_anthropic_error(response: UpstreamResponse) -> UpstreamStatusError:
    """Read the body of a response with status 400 or more and return the error to raise."""
    return to_anthropic_error(response.status, response.read(), retry_headers(response.headers))


def to_anthropic_error(
    status: int | None, body: bytes, headers: Mapping[str, str] | None = None
) -> UpstreamStatusError:
    """Return the error with Anthropic's message and OpenAI's type and code. An unknown status becomes 502."""
    error = to_status_error(status, body, headers)
    if error.type in _OPENAI_NAMES:
        error.type, error.code = _OPENAI_NAMES[error.type]
    if error.upstream_status == 400 and is_overflow(error.message):
        error.code = CONTEXT_LENGTH_EXCEEDED
    return error


def to_inner_error(value: JSONObject, response: UpstreamResponse) -> UpstreamError:
    """Return the exception for an error object in a response of status 200."""
    error = to_anthropic_error(find_status(value), response.redact(json.dumps(value).encode()))
    error.is_within_answer = True
    return error
