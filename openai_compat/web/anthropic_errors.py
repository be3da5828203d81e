"""Errors in the form of Anthropic's API."""

from __future__ import annotations

from typing import Final

from flask import Response

from openai_compat.core.anthropic import THREAD_UNSUPPORTED, error_type_of
from openai_compat.core.context_overflow import is_overflow, to_overflow_message, to_room_message
from openai_compat.core.errors import OpenAICompatError
from openai_compat.core.settings import Settings
from openai_compat.core.types import JSON
from openai_compat.services.forwarding import UpstreamRefusalError
from openai_compat.services.messages.events import to_event

from .errors import complete_response, headers_of, log_error, status_of, to_final_error
from .json_response import json_response
from .request_context import current_context

NO_CREDIT: Final = "insufficient_quota"
"""Code of a budget that is used up, which OpenAI reports as a rate limit. Claude Code repeats that ten times, and a
billing error never."""
REQUEST_ID: Final = "request-id"
"""Header with the request's id, which Anthropic's clients show with an error."""


def to_error_response(error: Exception, settings: Settings) -> Response:
    """Log an error and return it, also one of an upstream, which has another form."""
    known = to_final_error(error)
    if not isinstance(known, UpstreamRefusalError):
        log_error(known)
    status, value = _to_error(known, settings)
    request_id = current_context().request_id
    headers = {**headers_of(known), REQUEST_ID: request_id}
    body = {"type": "error", "error": value, "request_id": request_id}
    return complete_response(json_response(body, status, headers), error)


def to_error_event(error: OpenAICompatError, settings: Settings, request_id: str) -> bytes:
    """Return an error after the first byte. All clients raise it (source: the measurements of their stream parsers)."""
    return to_event("error", {"error": _to_error(error, settings)[1], "request_id": request_id})


def _to_error(error: OpenAICompatError, settings: Settings) -> tuple[int, JSON]:
    """Return the status and the error object. The status says the type, as the types of chat upstreams are OpenAI's."""
    status, message = status_of(error, settings), error.message
    if status < 500 and is_overflow(message, error.code, error.type):
        return 400, {"type": error_type_of(400), "message": to_overflow_message(message)}
    if status < 500:
        message = to_room_message(message) or message
    if error.code == NO_CREDIT and error.retry_after is None:
        status = 402
    value: JSON = {"type": error_type_of(status), "message": message}
    if error.code == THREAD_UNSUPPORTED:
        value["details"] = {"error_code": error.code, "unsupported": [error.param]}
    return status, value
