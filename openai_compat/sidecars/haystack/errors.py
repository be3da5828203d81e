"""Mapping of the exceptions that a pipeline raises to this server's errors."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping

from openai_compat.backends.parsing.openai_errors import find_status, to_status_error
from openai_compat.core.errors import (
    InternalError,
    OpenAICompatError,
    UpstreamError,
    UpstreamStatusError,
    UpstreamTruncatedError,
)

log = logging.getLogger(__name__)

RELAYED_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")


class ClientDisconnected(BaseException):
    """The client disconnected. A BaseException, so that components which catch `Exception` do not swallow it."""


class PipelineMismatchError(ValueError):
    """A model config that does not fit its pipeline. The message is shown to clients and contains nothing secret."""


def to_known_error(error: Exception) -> OpenAICompatError:
    """Return this server's error for an exception that a pipeline raised.

    A model's own error is relayed. Any other exception is logged, and its message is hidden from the client, because it
    may contain paths or keys.
    """
    for cause in _chain(error):
        if isinstance(cause, OpenAICompatError):
            return cause
        if (known := _from_openai(cause)) is not None:
            return known
    log.error("the pipeline failed", exc_info=error)
    return InternalError("The pipeline failed. The server's log has the reason.")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _from_error_event(message: str, body: object) -> UpstreamError:
    """Return the error for an error event within a stream, with the status that its code or type stands for."""
    if not isinstance(body, Mapping) or body.get("code") == UpstreamTruncatedError.code:
        return UpstreamTruncatedError(message)
    # This server writes the type `server_error` itself where the upstream names none.
    named = body if body.get("type") != "server_error" else {**body, "type": None}
    return to_status_error(find_status({"error": named}) or 502, json.dumps({"error": body}).encode(), message=message)


def _from_openai(error: BaseException) -> OpenAICompatError | None:
    """Translate an error of the official OpenAI client, which Haystack's components raise. Return None for others."""
    import openai

    if isinstance(error, openai.APIStatusError):
        body = error.body if isinstance(error.body, Mapping) else {}
        headers = error.response.headers
        return UpstreamStatusError(
            str(body.get("message") or "The pipeline's model answered with an error."),
            upstream_status=error.status_code,
            type_=str(body.get("type") or "upstream_error"),
            param=body.get("param"),
            code=body.get("code"),
            headers={name: headers[name] for name in RELAYED_HEADERS if name in headers},
        )
    if isinstance(error, openai.APIConnectionError):
        return UpstreamError("The pipeline's model could not be reached.", code="upstream_unreachable")
    if isinstance(error, openai.APIError):
        return _from_error_event(error.message, error.body)
    return None
