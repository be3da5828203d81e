"""Translation of exceptions into HTTP responses."""

from __future__ import annotations

import logging
from collections.abc import Callable

from flask import Flask, Request, Response, request
from werkzeug.exceptions import HTTPException

from openai_compat.core.errors import (
    CallCancelledError,
    InternalError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    OpenAICompatError,
    RateLimitedError,
    RequestError,
    RequestTooLargeError,
    UnsupportedMediaTypeError,
    UpstreamStatusError,
    WebSocketError,
)
from openai_compat.core.settings import Settings
from openai_compat.services.forwarding import UpstreamRefusalError

from .json_response import UNTRUSTED_HEADERS, BytesResponse, json_response
from .request_context import current_context

log = logging.getLogger(__name__)


def status_of(error: OpenAICompatError, settings: Settings) -> int:
    """Return the HTTP status of `error`."""
    if isinstance(error, UpstreamStatusError):
        return error.upstream_status
    if error.status is not None:
        return error.status
    return (
        settings.validation_error_status if isinstance(error, InvalidRequestError) else settings.upstream_error_status
    )


def headers_of(error: OpenAICompatError) -> dict[str, str]:
    """Return the response headers of `error`, which tell clients whether and when to retry."""
    headers = dict(error.headers) if isinstance(error, UpstreamStatusError | RateLimitedError) else {}
    if error.is_retryable is False:
        headers["x-should-retry"] = "false"
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    return headers


def to_response(error: OpenAICompatError, settings: Settings) -> Response:
    """Log `error` and return it in OpenAI's envelope. An error response of the upstream is forwarded unchanged."""
    if isinstance(error, UpstreamRefusalError):
        return BytesResponse(error.answer.body, error.answer.status, error.answer.headers)
    log_error(error)
    return json_response(error.to_envelope(), status_of(error, settings), headers_of(error))


def log_error(error: OpenAICompatError) -> None:
    """Log client errors at INFO, and errors of this server and of upstreams at WARNING with their cause."""
    if isinstance(error, RequestError | CallCancelledError):
        log.info("%s: %s", type(error).__name__, error.message)
    else:
        log.warning("%s: %s (%r)", type(error).__name__, error.message, error.__cause__)


def to_known_error(error: Exception) -> OpenAICompatError:
    """Return the project's error for any exception.

    An unexpected exception is logged with its traceback. The client gets an `InternalError` without details.
    """
    if isinstance(error, OpenAICompatError):
        return error
    if isinstance(error, HTTPException):
        return _from_http_exception(error)
    log.error("unexpected error", exc_info=error)
    return InternalError()


def is_websocket(request: Request) -> bool:
    """Return True if the client asks for a WebSocket."""
    upgrade: str = request.environ.get("HTTP_UPGRADE", "")
    return upgrade.lower() == "websocket"


def _from_http_exception(error: HTTPException) -> OpenAICompatError:
    if error.code in {404, 405} and is_websocket(request):
        return WebSocketError()
    request_line = f"({request.method} {request.path.replace(' ', '%20')})"  # so that a path imitates no log fields
    known: dict[int, Callable[[], RequestError]] = {
        404: lambda: NotFoundError(f"Invalid URL {request_line}"),
        405: lambda: MethodNotAllowedError(f"Method not allowed {request_line}"),
        413: lambda: RequestTooLargeError("The request body is larger than this server allows."),
        415: lambda: UnsupportedMediaTypeError(
            "This API accepts JSON. Send the header 'Content-Type: application/json'."
        ),
    }
    if error.code in known:
        return known[error.code]()
    if error.code is not None and 400 <= error.code < 500:
        return RequestError(error.description or error.name)
    log.error("unexpected %r", error)
    return InternalError()


def to_final_error(error: Exception) -> OpenAICompatError:
    """Return the project's error for an exception that ends the request."""
    context = current_context()
    if isinstance(error, CallCancelledError):  # raised by backends, which may not know the reason
        error = context.cancellation.to_error()
    known = to_known_error(error)
    context.error = known.code or known.type
    return known


def complete_response(response: Response, error: Exception) -> Response:
    """Add the headers to an error response that do not depend on the protocol."""
    response.headers.update(UNTRUSTED_HEADERS)  # the text may be an upstream's, or repeat the request's
    if isinstance(error, HTTPException) and error.code == 405:
        allowed = getattr(error, "valid_methods", None) or ()
        response.headers["Allow"] = ", ".join(sorted(allowed))
    return response


def register_errors(app: Flask, settings: Settings) -> None:
    """Register the error handler of all views and of requests that match no view, with errors in OpenAI's form."""

    @app.errorhandler(Exception)
    def handle(error: Exception) -> Response:
        return to_openai_response(error, settings)


def to_openai_response(error: Exception, settings: Settings) -> Response:
    """Log an exception that ends the request and return it in OpenAI's form."""
    return complete_response(to_response(to_final_error(error), settings), error)
