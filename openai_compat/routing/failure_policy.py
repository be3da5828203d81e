"""Classification of failures into retry, fall back to the next target, or return the error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openai_compat.core.errors import (
    BackendError,
    OpenAICompatError,
    UpstreamAuthenticationError,
    UpstreamBusyError,
    UpstreamConnectionError,
    UpstreamError,
    UpstreamStatusError,
    UpstreamTimeoutError,
)


@dataclass(frozen=True, slots=True)
class FailureAction:
    """What a call does after a failure.

    `retry`: the same upstream may be called again.
    `try_next`: another target may be called.
    `is_fault`: the failure counts against the upstream.
    `is_outage`: the upstream cannot serve any call at the moment, not only this one.
    `needs_larger_context`: only a model with a larger context window can succeed.
    `not_processed`: the upstream did not start to process the call.
    """

    retry: bool = False
    try_next: bool = False
    is_fault: bool = False
    is_outage: bool = False
    needs_larger_context: bool = False
    not_processed: bool = False


FATAL: Final = FailureAction()
"""Caused by the request or by this server's configuration. The error is returned at once."""
FAILED: Final = FailureAction(retry=True, try_next=True, is_fault=True)
UNREACHABLE: Final = FailureAction(retry=True, try_next=True, is_fault=True, is_outage=True)
REFUSED: Final = FailureAction(retry=True, try_next=True, is_fault=True, is_outage=True, not_processed=True)
EXHAUSTED: Final = FailureAction(try_next=True, is_fault=True, is_outage=True, not_processed=True)
TIMEOUT: Final = FailureAction(try_next=True, is_fault=True)
INTERNAL: Final = FailureAction(try_next=True)
"""A fault of this server."""
BUSY: Final = FailureAction(try_next=True, not_processed=True)
"""`max_concurrent` calls to the upstream were active for the whole queue timeout. Nothing was sent to it."""
TOO_LONG: Final = FailureAction(try_next=True, needs_larger_context=True, not_processed=True)

OVERLOADED: Final = frozenset({429, 503, 529})
"""Statuses of an overloaded upstream. Anthropic sends 529 where others send 503."""
PERMANENT: Final = frozenset({501, 505})
"""Server errors that a retry does not change."""


def classify(error: OpenAICompatError) -> FailureAction:
    """Return the action for `error`."""
    if isinstance(error, UpstreamStatusError):
        return _classify_status(error)
    if isinstance(error, UpstreamAuthenticationError):
        return FATAL
    if isinstance(error, UpstreamBusyError):
        return BUSY
    if isinstance(error, UpstreamTimeoutError):
        return TIMEOUT
    if isinstance(error, UpstreamConnectionError):
        return UNREACHABLE
    if isinstance(error, UpstreamError):
        return FAILED
    return INTERNAL if isinstance(error, BackendError) else FATAL


def _classify_status(error: UpstreamStatusError) -> FailureAction:
    status = error.upstream_status
    if error.code == "context_length_exceeded" and status < 500:
        return TOO_LONG
    if status in OVERLOADED:
        is_permanent = error.code == "insufficient_quota" or error.headers.get("x-should-retry") == "false"
        return EXHAUSTED if is_permanent else REFUSED
    if (status < 500 and status != 408) or status in PERMANENT:
        return FATAL
    return TIMEOUT if error.headers.get("x-should-retry") == "false" else FAILED
