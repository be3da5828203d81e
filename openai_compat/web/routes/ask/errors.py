"""The errors of `POST /ask`: what a chat page shows as if the assistant had said it, and what its developer needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from flask import Response

from openai_compat.core.errors import (
    AuthenticationError,
    InternalError,
    ModelNotFoundError,
    OpenAICompatError,
    RequestError,
    RequestTooLargeError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
)
from openai_compat.web.errors import headers_of, log_error
from openai_compat.web.responses import json_response

# The first that fits is said.
USER_MESSAGES: Final[Mapping[type[OpenAICompatError], str]] = {
    AuthenticationError: "This chat needs a valid API key.",
    ModelNotFoundError: "The model that was asked for is not available.",
    RequestTooLargeError: "The message is too large.",
    RequestError: "The request could not be understood.",
    UpstreamTimeoutError: "The answer took too long. Please try again.",
    UpstreamTruncatedError: "The answer broke off before it was complete. Please try again.",
    InternalError: "Something went wrong here. Please try again.",
    OpenAICompatError: "No answer can be had right now. Please try again in a moment.",
}
_SENTENCES_BY_CODE: Final[Mapping[str, str]] = {
    "context_length_exceeded": "The conversation has become too long for the model.",
    "content_filter": "The model may not answer this message.",
    "chat_completions_not_available": "This model does not chat. Please choose another one.",
    "rate_limit_exceeded": "There are too many requests right now. Please try again in a moment.",
}


def sentence_for(error: OpenAICompatError) -> str:
    """What the user is told: a sentence without a technical word in it."""
    by_code = _SENTENCES_BY_CODE.get(error.code or "")
    return by_code or next(sentence for kind, sentence in USER_MESSAGES.items() if isinstance(error, kind))


def to_ask_error(error: OpenAICompatError) -> dict[str, str]:
    """The error as a message of the assistant's (source: "Error Handling" in the README of seed 4)."""
    return {"role": "assistant", "content": sentence_for(error), "error": error.type, "details": error.message}


def status_of(error: OpenAICompatError) -> int:
    """400 for what the client can mend, 500 for everything else, whichever status it has behind other doors."""
    if isinstance(error, AuthenticationError):
        return 401
    if isinstance(error, RequestTooLargeError):
        return 413
    return 400 if isinstance(error, RequestError) else 500


def to_ask_response(error: OpenAICompatError) -> Response:
    """The whole response, with the headers that say when to try again."""
    log_error(error)
    return json_response(to_ask_error(error), status_of(error), headers_of(error))
