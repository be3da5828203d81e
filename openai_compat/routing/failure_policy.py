"""What a failure means for the call that met it: ask again, ask another, or tell the client."""

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
    """`retries`: the same upstream may be asked again. `try_next`: another may. `is_fault`: it counts against the
    upstream; `is_outage`: it says besides that there is no answer for anybody now, and not only that this call went
    wrong. `needs_larger_context`: only a model that takes more tokens can help. `not_processed`: the upstream has said
    that it did not begin with the call.
    """

    retries: bool = False
    try_next: bool = False
    is_fault: bool = False
    is_outage: bool = False
    needs_larger_context: bool = False
    not_processed: bool = False


FATAL: Final = FailureAction()
"""The client's to mend, or this server's operator's: told at once."""
FAILED: Final = FailureAction(retries=True, try_next=True, is_fault=True)
UNREACHABLE: Final = FailureAction(retries=True, try_next=True, is_fault=True, is_outage=True)
REFUSED: Final = FailureAction(retries=True, try_next=True, is_fault=True, is_outage=True, not_processed=True)
EXHAUSTED: Final = FailureAction(try_next=True, is_fault=True, is_outage=True, not_processed=True)
TIMEOUT: Final = FailureAction(try_next=True, is_fault=True)
INTERNAL: Final = FailureAction(try_next=True)
"""A fault of this server's."""
BUSY: Final = FailureAction(try_next=True, not_processed=True)
"""This server has as many calls under way to that upstream as it may: nothing was sent, and it was waited for long."""
TOO_LONG: Final = FailureAction(try_next=True, needs_larger_context=True, not_processed=True)

OVERLOADED: Final = frozenset({429, 503, 529})
"""529 is Anthropic's word for 503."""
PERMANENT: Final = frozenset({501, 505})
"""Server errors that no further try changes."""


def classify(error: OpenAICompatError) -> FailureAction:
    """What to do about `error`."""
    if isinstance(error, UpstreamStatusError):
        return _judge_status(error)
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


def _judge_status(error: UpstreamStatusError) -> FailureAction:
    status = error.upstream_status
    if error.code == "context_length_exceeded" and status < 500:
        return TOO_LONG
    if status in OVERLOADED:
        is_lasting = error.code == "insufficient_quota" or error.headers.get("x-should-retry") == "false"
        return EXHAUSTED if is_lasting else REFUSED
    if (status < 500 and status != 408) or status in PERMANENT:
        return FATAL
    return TIMEOUT if error.headers.get("x-should-retry") == "false" else FAILED
