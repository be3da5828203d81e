"""Requests to upstreams and their responses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.former_names import RESPONSE_NAMES, adopt_former_attributes, warn_renamed
from openai_compat.core.streams import Heartbeat


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """A request that is passed on to an upstream unchanged.

    `path` is relative to the API's root and includes the query (`chat/completions?x=1`). `body` is the client's bytes,
    or an iterator of them. `body_length` is the size of an iterator's content in bytes. With None the size is unknown
    and the body is sent with chunked transfer encoding. With `is_repeatable` the body may be sent a second time after
    the upstream closed a reused connection, although it may have processed the first one.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | Iterator[bytes] | None = None
    body_length: int | None = None
    is_repeatable: bool = False


def read_whole(blocks: Iterator[bytes | Heartbeat], max_bytes: int, close: Callable[[], None]) -> bytes:
    """Return a complete body. Raise the errors of `limit_size`."""
    body = []
    size = 0
    for block in blocks:
        if isinstance(block, bytes):
            body.append(block)
            size += len(block)
            if size > max_bytes:
                close()
                raise too_large(max_bytes)
    return body[0] if len(body) == 1 else b"".join(body)


def too_large(max_bytes: int) -> UpstreamInvalidResponseError:
    """Return the error for a body of more than `max_bytes`."""
    return UpstreamInvalidResponseError(f"The upstream's answer is larger than {max_bytes} bytes.")


def limit_size(
    blocks: Iterator[bytes | Heartbeat], max_bytes: int, close: Callable[[], None]
) -> Iterator[bytes | Heartbeat]:
    """Yield the blocks of a body.

    Raises:
        UpstreamInvalidResponseError: They have more than `max_bytes`. `close` was called before.
    """
    size = 0
    for block in blocks:
        if isinstance(block, bytes):
            size += len(block)
            if size > max_bytes:
                close()
                raise too_large(max_bytes)
        yield block


class UpstreamResponse(ABC):
    """An upstream's response with its `status`, its `headers` (names in lower case) and its body as bytes."""

    status: int
    headers: Mapping[str, str]
    max_bytes: int = 64 * 1024 * 1024
    """The largest body that `read` returns."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Accept the former names of methods in third-party classes."""
        super().__init_subclass__(**options)
        adopt_former_attributes(cls, RESPONSE_NAMES)

    @abstractmethod
    def blocks(self) -> Iterator[bytes | Heartbeat]:
        """Yield the body in non-empty blocks as it arrives, and `HEARTBEAT` during idle gaps.

        Raises:
            UpstreamTruncatedError: The body ended before it was complete.
            UpstreamTimeoutError: The idle or the total timeout expired.
            UpstreamInvalidResponseError: The body's compression is invalid.
            CallCancelledError: The call was cancelled.
        """

    def read(self) -> bytes:
        """Return the complete body. Raise the errors of `blocks`.

        Raises:
            UpstreamInvalidResponseError: The body is larger than `max_bytes`. The response is closed.
        """
        return read_whole(self.blocks(), self.max_bytes, self.close)

    def redact(self, data: bytes) -> bytes:
        """Return a part of the body without the credentials of the request, for errors within a body of status 200."""
        return data

    @abstractmethod
    def close(self) -> None:
        """End the exchange. Abort the upstream's response if it has not been read to its end."""

    def limit_remaining(self, seconds: float) -> None:  # noqa: B027 - optional, keeping the old limits is correct too
        """Raise `UpstreamTimeoutError` from a read that needs longer than `seconds` from now to reach the end.

        Readers call it when the content is complete and only the end of the body is missing, and again for whatever
        follows all the same.
        """

    def release(self) -> None:
        """Close a response whose content is complete, and keep its connection alive if possible."""
        self.close()

    def expect_end(self, seconds: float) -> None:
        """Former name of `limit_remaining`, for third-party backends."""
        warn_renamed("expect_end", "limit_remaining")
        self.limit_remaining(seconds)

    def close_after_end(self) -> None:
        """Former name of `release`, for third-party backends."""
        warn_renamed("close_after_end", "release")
        self.release()
