"""Streams of routed calls, observed for the circuit breaker."""

from __future__ import annotations

from collections.abc import Iterator

from openai_compat.core.errors import BackendError, UpstreamError
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import Usage
from openai_compat.routing.failover import Attempt

from .event_stream import EventStream


class FailoverStream(EventStream):
    """The stream of the target that answers. Its end or failure is reported to the circuit breaker."""

    def __init__(self, attempt: Attempt[EventStream]) -> None:
        self._attempt = attempt
        self._events = iter(attempt.result)
        self.headers = attempt.result.headers

    @property
    def usage(self) -> Usage | None:
        return self._attempt.result.usage

    def __iter__(self) -> Iterator[bytes | Heartbeat]:
        return self

    def __next__(self) -> bytes | Heartbeat:
        try:
            return next(self._events)
        except StopIteration:
            self.failure = record_end(self._attempt)
            raise
        except BackendError as error:
            self._attempt.record_failure(error)
            raise

    def close(self) -> None:
        self._attempt.close()


def record_end(attempt: Attempt[EventStream]) -> UpstreamError | None:
    """Report the end of an attempt's stream, and return the failure that was passed on as its last event."""
    failure = attempt.result.failure
    if failure is None:
        attempt.record_success()
    else:
        attempt.record_failure(failure)
    return failure
