"""What a routed call has to show for itself: an answer, and a plan that hears how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

from openai_compat.core.errors import BackendError, UpstreamTruncatedError
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import ChatDelta, Usage
from openai_compat.routing.failover import Attempt

from .chat import ChatAnswer

T = TypeVar("T")


class EventStream(Protocol):
    """A stream of events that has begun, from whichever kind of backend."""

    @property
    def events(self) -> Iterator[bytes | Heartbeat]: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def usage(self) -> Usage | None: ...

    @property
    def has_failed(self) -> bool: ...

    def close(self) -> None: ...


class ObservedStream(Iterator[T], Generic[T]):
    """`values`, whose end or failure is told to the plan behind `begun`."""

    def __init__(self, values: Iterator[T], begun: Attempt[Any]) -> None:
        self._values = values
        self._begun = begun

    def __next__(self) -> T:
        try:
            return next(self._values)
        except StopIteration:
            self._begun.ended()
            raise
        except BackendError as error:
            self._begun.failed(error)
            raise


class FailoverEventStream(Iterator["bytes | Heartbeat"]):
    """The events of the target that answers."""

    def __init__(self, begun: Attempt[EventStream]) -> None:
        self._begun = begun

    def __next__(self) -> bytes | Heartbeat:
        source = self._begun.result
        try:
            return next(source.events)
        except StopIteration:
            if source.has_failed:
                self._begun.failed(UpstreamTruncatedError("The upstream told of an error within its answer."))
            else:
                self._begun.ended()
            raise
        except BackendError as error:
            self._begun.failed(error)
            raise

    @property
    def headers(self) -> Mapping[str, str]:
        return self._begun.result.headers

    @property
    def usage(self) -> Usage | None:
        return self._begun.result.usage

    def close(self) -> None:
        self._begun.close()


class FailoverChat:
    """The deltas of the target that answers."""

    def __init__(self, begun: Attempt[ChatAnswer]) -> None:
        self._begun = begun

    @property
    def usage(self) -> Usage | None:
        return self._begun.result.usage

    def deltas(self) -> Iterator[ChatDelta | Heartbeat]:
        return ObservedStream(self._begun.result.deltas(), self._begun)

    def close(self) -> None:
        self._begun.close()
