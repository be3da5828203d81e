"""What is known of a request once it has ended, for metrics, traces and the log of calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .settings import ModelConfig
    from .trace import Trace
    from .types import Usage


@dataclass(slots=True)
class Activity:
    """Numbers of the requests and of the streams of this process that have not ended."""

    requests: int = 0
    streams: int = 0


@dataclass(frozen=True, slots=True)
class WorkerTotals:
    """Open streams of all workers, and the calls that are missing in the log because the database was away."""

    streams: int
    dropped_calls: int


@dataclass(slots=True)
class AttemptRecord:
    """One request to a target of a route.

    Times are values of `time.perf_counter`. `first_byte_at` is None if the target did not answer. `ended_at` is None
    while the attempt goes on, and for the answer of a route with a single target, which ends with its request. `error`
    is the code or the type of the error that ended it. `span_id` is that of its span, 0 without traces. `is_sent` is
    False if it ended before its request was sent.
    """

    target: str
    started_at: float
    first_byte_at: float | None = None
    ended_at: float | None = None
    error: str | None = None
    span_id: int = 0
    is_sent: bool = True


MAX_KEPT_BYTES: Final = 16_384
"""Bytes of a body that are kept for the log of calls."""


@dataclass(slots=True)
class KeptBodies:
    """Beginnings of the bodies of a call, which are kept with `CALL_LOG_BODIES` only."""

    request: bytes
    answer: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class EndedRequest:
    """A request whose last byte was sent, or whose client disconnected. Observers must not change it.

    It is not frozen, because that would take 2 µs of every request.

    One that left its work to a background response is reported once that has ended, with its usage.

    Attributes:
        operation: Path below the API's root for a call to a model (`chat/completions`), else the name of the view, or
            an empty text if there is none.
        status: The HTTP status, 499 after a client disconnect. A stream that failed has the status that it began with.
        error: The code or the type of the error that the client received, also inside a stream.
        model: The model that the request named, or an empty text. It may be unknown to this server.
        kind: The kind of the model config, or an empty text.
        served_by: The name of the model config that answered, or an empty text.
        started_at, ended_at: Values of `time.perf_counter`.
        first_token_at: When the answer started, or None. It equals the end for an answer that is not streamed.
        attempts: The attempts at the targets of the route, in their order. Empty if no target was asked.
        project_id, key_id, key_name: The account of the caller, or None.
        served: The model config that answered, or None. Prices are found by it.
        adapted: Value of the header `x-openai-compat-adapted`, or an empty text.
        trace: The trace of the request, or None without traces.
        bodies: Beginnings of the request and of the answer, or None if they are not kept.
    """

    request_id: str
    operation: str
    status: int
    error: str | None
    model: str
    kind: str
    served_by: str
    started_at: float
    ended_at: float
    first_token_at: float | None
    is_streamed: bool
    usage: Usage | None
    attempts: Sequence[AttemptRecord]
    project_id: str | None
    key_id: str | None
    key_name: str | None
    served: ModelConfig | None
    adapted: str
    trace: Trace | None
    bodies: KeptBodies | None = None

    @property
    def is_failure(self) -> bool:
        """True if this server or an upstream failed, also after the first byte."""
        return self.status >= 500 or (self.error is not None and self.status < 400)


Observer = Callable[[EndedRequest], None]
"""Called at the end of every request. It must return within microseconds, and raise nothing."""
