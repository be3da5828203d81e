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
class Verdict:
    """`retries`: the same upstream may be asked again. `falls_back`: another may. `is_fault`: it counts against the
    upstream; `is_outage`: it says besides that there is no answer for anybody now, and not only that this call went
    wrong. `needs_window`: only a model that takes more tokens can help. `did_nothing`: the upstream has said that it
    did not begin with the call.
    """

    retries: bool = False
    falls_back: bool = False
    is_fault: bool = False
    is_outage: bool = False
    needs_window: bool = False
    did_nothing: bool = False


FINAL: Final = Verdict()
"""The client's to mend, or this server's operator's: told at once."""
FAILED: Final = Verdict(retries=True, falls_back=True, is_fault=True)
UNREACHABLE: Final = Verdict(retries=True, falls_back=True, is_fault=True, is_outage=True)
REFUSED: Final = Verdict(retries=True, falls_back=True, is_fault=True, is_outage=True, did_nothing=True)
EXHAUSTED: Final = Verdict(falls_back=True, is_fault=True, is_outage=True, did_nothing=True)
SILENT: Final = Verdict(falls_back=True, is_fault=True)
OURS: Final = Verdict(falls_back=True)
"""A fault of this server's."""
BUSY: Final = Verdict(falls_back=True, did_nothing=True)
"""This server has as many calls under way to that upstream as it may: nothing was sent, and it was waited for long."""
TOO_LONG: Final = Verdict(falls_back=True, needs_window=True, did_nothing=True)

OVERLOADED: Final = frozenset({429, 503, 529})
"""529 is Anthropic's word for 503."""
LASTING: Final = frozenset({501, 505})
"""Server errors that no further try changes."""


def judge(error: OpenAICompatError) -> Verdict:
    """What to do about `error`."""
    if isinstance(error, UpstreamStatusError):
        return _judge_status(error)
    if isinstance(error, UpstreamAuthenticationError):
        return FINAL
    if isinstance(error, UpstreamBusyError):
        return BUSY
    if isinstance(error, UpstreamTimeoutError):
        return SILENT
    if isinstance(error, UpstreamConnectionError):
        return UNREACHABLE
    if isinstance(error, UpstreamError):
        return FAILED
    return OURS if isinstance(error, BackendError) else FINAL


def _judge_status(error: UpstreamStatusError) -> Verdict:
    status = error.upstream_status
    if error.code == "context_length_exceeded" and status < 500:
        return TOO_LONG
    if status in OVERLOADED:
        is_lasting = error.code == "insufficient_quota" or error.headers.get("x-should-retry") == "false"
        return EXHAUSTED if is_lasting else REFUSED
    if (status < 500 and status != 408) or status in LASTING:
        return FINAL
    return SILENT if error.headers.get("x-should-retry") == "false" else FAILED
