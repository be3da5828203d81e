"""Errors of `POST /ask`, as a message that a chat page shows and with details for its developer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from flask import Response

from openai_compat.core.errors import (
    AuthenticationError,
    BudgetExceededError,
    ForbiddenError,
    InternalError,
    ModelNotFoundError,
    OpenAICompatError,
    PermissionDeniedError,
    RequestError,
    RequestTimeoutError,
    RequestTooLargeError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
)
from openai_compat.web.errors import headers_of, log_error
from openai_compat.web.json_response import UNTRUSTED_HEADERS, json_response

# The first class that matches is used.
USER_MESSAGES: Final[Mapping[type[OpenAICompatError], str]] = {
    AuthenticationError: "This chat needs a valid API key.",
    ForbiddenError: "This page may not use the chat here.",
    ModelNotFoundError: "The model that was asked for is not available.",
    RequestTooLargeError: "The message is too large.",
    RequestTimeoutError: "The message did not arrive in time. Please try again.",
    BudgetExceededError: "The budget for this chat is used up.",
    PermissionDeniedError: "This chat may not use the model that was asked for.",
    RequestError: "The request could not be understood.",
    UpstreamTimeoutError: "The answer took too long. Please try again.",
    UpstreamTruncatedError: "The answer broke off before it was complete. Please try again.",
    InternalError: "Something went wrong here. Please try again.",
    OpenAICompatError: "No answer can be had right now. Please try again in a moment.",
}
_USER_MESSAGES_BY_CODE: Final[Mapping[str, str]] = {
    "context_length_exceeded": "The conversation has become too long for the model.",
    "content_filter": "The model may not answer this message.",
    "chat_completions_not_available": "This model does not chat. Please choose another one.",
    "rate_limit_exceeded": "There are too many requests right now. Please try again in a moment.",
}


def user_message(error: OpenAICompatError) -> str:
    """Return the message for the user, one sentence without technical words."""
    by_code = _USER_MESSAGES_BY_CODE.get(error.code or "")
    return by_code or next(message for kind, message in USER_MESSAGES.items() if isinstance(error, kind))


def to_ask_error(error: OpenAICompatError) -> dict[str, str]:
    """Return the error as an assistant's message.

    Source: "Error Handling" in the documentation of the `/ask` backend that this endpoint replaces.
    """
    return {"role": "assistant", "content": user_message(error), "error": error.type, "details": error.message}


def status_of(error: OpenAICompatError) -> int:
    """Return 400 for what the client can correct and 500 for everything else, 401, 403, 408 and 413 excepted."""
    if isinstance(error, AuthenticationError | ForbiddenError | RequestTimeoutError | RequestTooLargeError):
        return error.status or 400
    return 400 if isinstance(error, RequestError) else 500


def to_ask_response(error: OpenAICompatError) -> Response:
    """Return the response, with the headers that report when to retry."""
    log_error(error)
    return json_response(to_ask_error(error), status_of(error), {**headers_of(error), **UNTRUSTED_HEADERS})
