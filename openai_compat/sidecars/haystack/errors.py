"""What went wrong within a pipeline, told as one of this server's errors."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from openai_compat.core.errors import (
    InternalError,
    OpenAICompatError,
    UpstreamError,
    UpstreamStatusError,
    UpstreamTruncatedError,
)

log = logging.getLogger(__name__)

TOLD_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")


class ClientDisconnected(BaseException):
    """Nobody waits for the answer any more."""


class PipelineMismatchError(ValueError):
    """A row and its pipeline do not fit; the sentence is for whoever wrote the row, and shows nothing secret."""


def to_known_error(error: Exception) -> OpenAICompatError:
    """Our error for what a pipeline raised. A model's own error is relayed; what is not known is logged, and shown
    without its words: they may hold paths or keys.
    """
    for cause in _chain(error):
        if isinstance(cause, OpenAICompatError):
            return cause
        if (known := _from_openai(cause)) is not None:
            return known
    log.error("the pipeline failed", exc_info=error)
    return InternalError("The pipeline failed; the server's log has the reason.")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _from_openai(error: BaseException) -> OpenAICompatError | None:
    """The error of the official client, as the components that call models raise it."""
    import openai

    if isinstance(error, openai.APIStatusError):
        facts = error.body if isinstance(error.body, Mapping) else {}
        return UpstreamStatusError(
            str(facts.get("message") or "The pipeline's model answered with an error."),
            upstream_status=error.status_code,
            type_=str(facts.get("type") or "upstream_error"),
            param=facts.get("param"),
            code=facts.get("code"),
            headers={name: error.response.headers[name] for name in TOLD_HEADERS if name in error.response.headers},
        )
    if isinstance(error, openai.APIConnectionError):
        return UpstreamError("The pipeline's model could not be reached.", code="upstream_unreachable")
    if isinstance(error, openai.APIError):
        return UpstreamTruncatedError(error.message)
    return None
