"""Classification of failures into retry, fall back to the next target, or return the error."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from openai_compat.core.context_overflow import is_overflow
from openai_compat.core.errors import (
    BackendError,
    ContextLengthExceededError,
    InvalidAnswerError,
    InvalidRequestError,
    OpenAICompatError,
    RequestError,
    RequestTooLargeError,
    UpstreamAuthenticationError,
    UpstreamBusyError,
    UpstreamConnectError,
    UpstreamConnectionError,
    UpstreamError,
    UpstreamStatusError,
    UpstreamTimeoutError,
)


@dataclass(frozen=True, slots=True)
class FailureAction:
    """What a call does after a failure.

    `retry`: the same upstream may be called again.
    `try_next`: another target may be called, also if the first target of the call failed.
    `is_fault`: the failure counts against the upstream.
    `is_outage`: the upstream cannot serve any call at the moment, not only this one.
    `needs_larger_context`: only a model with a larger context window can succeed.
    `not_processed`: the upstream did not start to process the call.
    `is_clients_fault`: the request is wrong for every model.
    """

    retry: bool = False
    try_next: bool = False
    is_fault: bool = False
    is_outage: bool = False
    needs_larger_context: bool = False
    not_processed: bool = False
    is_clients_fault: bool = False


FATAL: Final = FailureAction()
"""Caused by this server's configuration, or by the end of the call."""
WRONG: Final = FailureAction(not_processed=True, is_clients_fault=True)
UNSUITABLE: Final = FailureAction(not_processed=True)
"""The target refuses for its own reasons. It lacks the model, a parameter, or access for the caller."""
FAILED: Final = FailureAction(retry=True, try_next=True, is_fault=True)
UNREACHABLE: Final = FailureAction(retry=True, try_next=True, is_fault=True, is_outage=True)
REFUSED: Final = FailureAction(retry=True, try_next=True, is_fault=True, is_outage=True, not_processed=True)
EXHAUSTED: Final = FailureAction(try_next=True, is_fault=True, is_outage=True, not_processed=True)
"""The operator must act, for example after the upstream refused this server's key."""
TIMEOUT: Final = FailureAction(try_next=True, is_fault=True)
UNUSABLE: Final = FailureAction(retry=True, try_next=True)
"""The upstream works, but its model gave an answer of the wrong form."""
INTERNAL: Final = FailureAction(try_next=True)
"""A fault of this server."""
BUSY: Final = FailureAction(try_next=True, not_processed=True)
"""`max_concurrent` calls to the upstream were active for the whole queue timeout. Nothing was sent to it."""
TOO_LONG: Final = FailureAction(try_next=True, needs_larger_context=True, not_processed=True)

OVERLOADED: Final = frozenset({429, 503, 529})
"""Statuses of an overloaded upstream. Anthropic sends 529 where others send 503."""
PERMANENT: Final = frozenset({501, 505})
"""Server errors that a retry does not change."""
WRONG_REQUEST: Final = frozenset({400, 413, 415, 422})
ABOUT_CREDENTIAL: Final = frozenset({401, 403, 429})
"""Statuses that depend on the credential of the call."""


def classify(error: OpenAICompatError) -> FailureAction:
    """Return the action for `error`."""
    if isinstance(error, UpstreamStatusError):
        return _classify_status(error)
    if isinstance(error, UpstreamAuthenticationError):
        return EXHAUSTED
    if isinstance(error, UpstreamBusyError):
        return BUSY
    if isinstance(error, UpstreamTimeoutError):
        return TIMEOUT
    if isinstance(error, UpstreamConnectionError):
        return REFUSED if isinstance(error, UpstreamConnectError) else UNREACHABLE
    if isinstance(error, UpstreamError):
        return UNUSABLE if isinstance(error, InvalidAnswerError) else FAILED
    if isinstance(error, ContextLengthExceededError):
        return TOO_LONG
    if isinstance(error, RequestError):
        return WRONG if isinstance(error, InvalidRequestError | RequestTooLargeError) else UNSUITABLE
    return INTERNAL if isinstance(error, BackendError) else FATAL


def concerns_credential(error: OpenAICompatError) -> bool:
    """Return True if another credential might not have failed, as with a rate limit or an exhausted quota."""
    if isinstance(error, UpstreamStatusError):
        return error.upstream_status in ABOUT_CREDENTIAL or error.code == "insufficient_quota"
    return isinstance(error, UpstreamAuthenticationError)


def _classify_status(error: UpstreamStatusError) -> FailureAction:
    action = _action_of_status(error)
    return replace(action, not_processed=False) if error.is_within_answer else action


def _action_of_status(error: UpstreamStatusError) -> FailureAction:
    status = error.upstream_status
    if _is_too_long(error):
        return TOO_LONG
    if status in OVERLOADED:
        is_permanent = error.code == "insufficient_quota" or error.headers.get("x-should-retry") == "false"
        return EXHAUSTED if is_permanent else REFUSED
    if status in WRONG_REQUEST and not _is_unsupported(error.code):
        return WRONG
    if (status < 500 and status != 408) or status in PERMANENT:
        return UNSUITABLE
    return TIMEOUT if error.headers.get("x-should-retry") == "false" else FAILED


def _is_too_long(error: UpstreamStatusError) -> bool:
    """Return True if the prompt exceeds the context window. vLLM and llama.cpp have no code of OpenAI's for it."""
    if error.code == "context_length_exceeded":
        return error.upstream_status < 500
    return error.upstream_status in WRONG_REQUEST and is_overflow(error.message, error.code, error.type)


def _is_unsupported(code: str | None) -> bool:
    """Return True for codes such as `unsupported_parameter`, which another model may support."""
    return code is not None and (code == "model_not_found" or code.startswith("unsupported_"))
