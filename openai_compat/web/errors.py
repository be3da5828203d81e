"""From exceptions to responses: the only place that turns an error into a status and a body."""

from __future__ import annotations

import logging
from collections.abc import Callable

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from openai_compat.core.errors import (
    CallCancelledError,
    InternalError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    OpenAICompatError,
    RequestError,
    RequestTooLargeError,
    UnsupportedMediaTypeError,
    UpstreamStatusError,
)
from openai_compat.core.settings import Settings
from openai_compat.services.forwarding import UpstreamRefusalError

from .request_context import current_context
from .responses import BytesResponse, json_response

log = logging.getLogger(__name__)


def status_of(error: OpenAICompatError, settings: Settings) -> int:
    """The HTTP status of an error."""
    if isinstance(error, UpstreamStatusError):
        return error.upstream_status
    if error.status is not None:
        return error.status
    return (
        settings.validation_error_status if isinstance(error, InvalidRequestError) else settings.upstream_error_status
    )


def headers_of(error: OpenAICompatError) -> dict[str, str]:
    """What the error tells clients about trying again."""
    headers = dict(error.headers) if isinstance(error, UpstreamStatusError) else {}
    if error.is_retryable is False:
        headers["x-should-retry"] = "false"
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    return headers


def to_response(error: OpenAICompatError, settings: Settings) -> Response:
    """The error in OpenAI's envelope."""
    if isinstance(error, UpstreamRefusalError):
        return BytesResponse(error.answer.body, error.answer.status, error.answer.headers)
    log_error(error)
    return json_response(error.to_envelope(), status_of(error, settings), headers_of(error))


def log_error(error: OpenAICompatError) -> None:
    """The client's mistakes at INFO; ours and the upstream's with what caused them."""
    if isinstance(error, RequestError | CallCancelledError):
        log.info("%s: %s", type(error).__name__, error.message)
    else:
        log.warning("%s: %s (%r)", type(error).__name__, error.message, error.__cause__)


def to_known_error(error: Exception) -> OpenAICompatError:
    """Our error for any exception. What is not known is logged with its traceback and shown without."""
    if isinstance(error, OpenAICompatError):
        return error
    if isinstance(error, HTTPException):
        return _translate(error)
    log.error("unexpected error", exc_info=error)
    return InternalError()


def _translate(error: HTTPException) -> OpenAICompatError:
    place = f"({request.method} {request.path})"
    known: dict[int, Callable[[], RequestError]] = {
        404: lambda: NotFoundError(f"Invalid URL {place}"),
        405: lambda: MethodNotAllowedError(f"Method not allowed {place}"),
        413: lambda: RequestTooLargeError("The request body is larger than this server takes."),
        415: lambda: UnsupportedMediaTypeError(
            "This API takes JSON: send the header 'Content-Type: application/json'."
        ),
    }
    if error.code in known:
        return known[error.code]()
    if error.code is not None and 400 <= error.code < 500:
        return RequestError(error.description or error.name)
    log.error("unexpected %r", error)
    return InternalError()


def register_errors(app: Flask, settings: Settings) -> None:
    """Whatever goes wrong in any view, or before one is found, wears the envelope."""

    @app.errorhandler(Exception)
    def handle(error: Exception) -> Response:
        if isinstance(error, CallCancelledError):  # a backend knows that it was to stop, and not always why
            error = current_context().cancellation.to_error()
        response = to_response(to_known_error(error), settings)
        if isinstance(error, HTTPException) and error.code == 405:
            allowed = getattr(error, "valid_methods", None) or ()
            response.headers["Allow"] = ", ".join(sorted(allowed))
        return response
