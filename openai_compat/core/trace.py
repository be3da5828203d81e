"""Trace context of a request (W3C Trace Context)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import getrandbits
from typing import Any, Final

TRACEPARENT: Final = "traceparent"
_PARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_SAMPLED: Final = 1


@dataclass(slots=True)
class Trace:
    """The place of one request in a trace, and what its spans tell beside its end.

    Attributes:
        trace_id: 128 bits, never 0.
        span_id: Id of the request's span. 64 bits, never 0.
        parent_id: Id of the client's span, or None if the trace begins here.
        attempt_id: Id of the span of the attempt, where the request has one only.
        is_sampled: Whether spans are exported.
        payload: The body of a sampled call to a model.
        answer: The bytes of the answer, which are collected only if they are to be exported.
    """

    trace_id: int
    span_id: int
    parent_id: int | None
    attempt_id: int
    is_sampled: bool
    payload: Mapping[str, Any] | None = None
    answer: list[bytes] | None = field(default=None, repr=False)

    @property
    def id(self) -> str:
        """The id of the trace as log lines have it."""
        return f"{self.trace_id:032x}"

    def headers(self, headers: Mapping[str, str], attempt_id: int) -> dict[str, str]:
        """Return the headers of a request to an upstream, which becomes a child of the attempt's span.

        The client's `tracestate` belongs to a trace that it began.
        """
        sent = {**headers, TRACEPARENT: f"00-{self.trace_id:032x}-{attempt_id:016x}-{int(self.is_sampled):02x}"}
        if self.parent_id is None:
            sent.pop("tracestate", None)
        return sent


def parse_traceparent(text: str | None) -> tuple[int, int, bool] | None:
    """Return the trace id, the parent's span id, and whether it is sampled. A malformed header counts as none.

    A later version may have more fields behind the four of version 00.
    """
    match = _PARENT.fullmatch(text) if text else None
    if match is None or (match[1] == "00" and match[5]):
        return None
    trace_id, parent_id = int(match[2], 16), int(match[3], 16)
    if not trace_id or not parent_id:
        return None
    return trace_id, parent_id, bool(int(match[4], 16) & _SAMPLED)


def new_span_id() -> int:
    """Return a random id of 64 bits that is not 0."""
    return getrandbits(64) or 1


def new_trace_id() -> int:
    """Return a random id of 128 bits that is not 0."""
    return getrandbits(128) or 1
