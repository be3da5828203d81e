"""The two forms of an answer, complete bytes or a stream of server-sent events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from openai_compat.core.errors import UpstreamError
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import JSON as JSON  # the services import it from here, too
from openai_compat.core.types import Usage

ChunkFilter = Callable[[JSON], JSON]
"""Return the chunk that the client gets, which is the given object or a changed copy."""


@dataclass(frozen=True, slots=True)
class CompleteAnswer:
    """A non-streaming answer, ready to be sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    usage: Usage | None = None


class EventStream(ABC):
    """A started stream, from any kind of backend.

    Iterating it yields blocks of complete events, and `HEARTBEAT` in idle gaps. The stream is primed: its first content
    has arrived, so earlier failures were raised while the response could still have a status of its own.

    Raises (while iterating):
        BackendError: the answer broke off. CallCancelledError
    """

    headers: Mapping[str, str] = {}
    """Headers of the upstream that the client may see, with lower-case names."""
    failure: UpstreamError | None = None
    """The error of the upstream that was passed on as an event, and ended the stream."""

    @abstractmethod
    def __iter__(self) -> Iterator[bytes | Heartbeat]: ...

    @property
    @abstractmethod
    def usage(self) -> Usage | None:
        """The token usage, known at the end of the stream."""

    @abstractmethod
    def close(self) -> None:
        """End the work behind the stream, on every path and at any time."""
