"""Anthropic's stop reasons and error types beside OpenAI's.

Source: Anthropic's API reference, "Messages" and "Errors".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from .types import FinishReason

VERSION: Final = "2023-06-01"
"""Version of the API that this server speaks, for the header `anthropic-version`."""
VERSION_HEADER: Final = "anthropic-version"
"""Header that every client of the Messages API sends, and no other client."""
BILLING_PREFIX: Final = "x-anthropic-billing-header:"
"""Beginning of a system block of Claude Code that is no instruction, and that differs between requests."""

THREAD_UNSUPPORTED: Final = "thread_unsupported_request"
"""Code of the refusal to keep a conversation (`thread`), after which clients send the complete one with each call."""

STOP_REASONS: Final[Mapping[FinishReason, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
"""OpenAI's reason for the end of an answer -> Anthropic's."""
FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""Anthropic's reason for the end of an answer -> OpenAI's. `pause_turn` has no counterpart."""

ERROR_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""HTTP status -> type of the error. Any other 4xx is an `invalid_request_error`, and any other 5xx an `api_error`."""


_SESSION: Final = re.compile(r"_session_[\w-]+$")
"""End of the user's id that earlier versions of Claude Code send."""


def end_user_in(metadata: Any) -> str | None:
    """Return the end user that the `metadata` of a request names.

    Claude Code sends a JSON object whose session differs between conversations of the same user. The user is its
    account, or its device if it has none.
    """
    user = metadata.get("user_id") if isinstance(metadata, Mapping) else None
    if not isinstance(user, str) or not user:
        return None
    try:
        value = json.loads(user) if user.startswith("{") else None
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        names = (value.get(key) for key in ("account_uuid", "device_id"))
        return next((name for name in names if isinstance(name, str) and name), user)
    return _SESSION.sub("", user) or user


def error_type_of(status: int) -> str:
    """Return the type of the error that an HTTP status stands for."""
    return ERROR_TYPES.get(status) or ("invalid_request_error" if status < 500 else "api_error")
