"""Requests to upstreams and their responses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from openai_compat.core.streams import Heartbeat


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """A call to pass on as it is.

    `path` is relative to the API's root, with its query (`chat/completions?x=1`). `body` is the client's bytes, or an
    iterator of them for a body of `body_length` bytes (None: unknown, sent chunked).
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | Iterator[bytes] | None = None
    body_length: int | None = None


class UpstreamResponse(ABC):
    """An upstream's answer on its way through: `status`, the `headers` that may be relayed, and the bytes."""

    status: int
    headers: Mapping[str, str]

    @abstractmethod
    def blocks(self) -> Iterator[bytes | Heartbeat]:
        """The body as it arrives, in non-empty blocks.

        Raises:
            UpstreamCutError, UpstreamTimeoutError, CallCancelledError
        """

    @abstractmethod
    def read(self) -> bytes:
        """The whole body; raises as `blocks` does."""

    @abstractmethod
    def close(self) -> None:
        """Ends the exchange on every path; a reply not read to its end is broken off."""

    def limit_remaining(self, seconds: float) -> None:  # noqa: B027 - to wait on as before is right, too
        """Nothing but the end is awaited any more: reading ends with an `UpstreamTimeoutError` after `seconds`."""

    def release(self) -> None:
        """`close`, where the content says that all of it has come, so that the connection may be kept."""
        self.close()
