"""Response bodies, read as they arrive on a connection."""

from __future__ import annotations

import time
import zlib
from contextlib import suppress
from time import monotonic
from typing import Final

import httptools
from requests.exceptions import ChunkedEncodingError, ContentDecodingError, ReadTimeout

from .connection import MAX_HEADER_BYTES, Connection, Deadlines, remaining
from .decompression import Decoder
from .pool import ConnectionPool

SMALL_READ_BYTES: Final = 64
"""Reads of fewer bytes are small. An event of a stream has more."""
MAX_SMALL_READS: Final = 1000
"""The number of small reads of a response without a pause."""
SMALL_READ_PAUSE: Final = 0.001
LAST_BYTES_TIMEOUT: Final = 0.05
"""Seconds that the end of the framing may follow the last event before `release` gives up the connection."""


class ResponseBody:
    """A response body as it arrives, used as `requests.Response.raw`.

    `total_deadline` is the monotonic time at which the total timeout ends.
    """

    def __init__(
        self, connection: Connection, pool: ConnectionPool, deadlines: Deadlines, total_deadline: float
    ) -> None:
        self._connection: Connection | None = connection
        self._pool = pool
        self._deadlines = deadlines
        self._total_deadline = self._latest_deadline = total_deadline
        self._idle_seconds = 0.0
        self._read_timeout = self._timeout_valid_until = 0.0
        self._framing_bytes = self._small_reads = 0
        # Requests ask for no compression. Where an upstream compresses all the same, the headers must not say so.
        encoding = connection.headers.get("content-encoding", "").lower()
        is_encoded = encoding in {"gzip", "x-gzip", "deflate"} and connection.may_have_body
        self._decoder = Decoder() if is_encoded else None
        if is_encoded:
            for name in ("content-encoding", "content-length", "etag"):
                connection.headers.pop(name, None)

    def read1(self, _amount: int = -1) -> bytes | None:
        """Return the next bytes, b"" at the end, or None after an idle gap of `heartbeat_interval`.

        Raises:
            ReadTimeout: The idle or the total timeout expired.
            ChunkedEncodingError: The response ended before it was complete, or has too large trailers.
            ContentDecodingError: The response is not compressed in the way that its header names.
        """
        connection = self._connection
        if connection is None:
            return b""
        decoder = self._decoder
        while True:
            if decoder is not None and (decoded := self._decode(decoder)):
                return decoded
            while not connection.body:
                if connection.is_complete:
                    return self._end_of_body()
                if not self._receive(connection):
                    return None
            data = connection.body[0] if len(connection.body) == 1 else b"".join(connection.body)
            connection.body.clear()
            self._framing_bytes = 0
            if decoder is None:
                return data
            decoder.feed(data)

    def _end_of_body(self) -> bytes:
        if self._decoder is not None and self._decoder.is_inside:
            raise self._truncated("the compressed data has no end")
        self.close()
        return b""

    def _receive(self, connection: Connection) -> bool:
        """Wait for more data. Return False after an idle gap of `heartbeat_interval`."""
        # The timeout is computed anew only when the total deadline has come closer than it, or after an idle gap.
        if self._idle_seconds or monotonic() > self._timeout_valid_until:
            self._read_timeout = self._next_timeout()
            self._timeout_valid_until = self._total_deadline - self._read_timeout
            connection.set_read_timeout(self._read_timeout or None)
        try:
            received = connection.receive()
        except TimeoutError as error:
            return self._on_idle(self._read_timeout, error)
        except (OSError, httptools.HttpParserError) as error:
            raise self._truncated(error) from error
        if self._idle_seconds:
            self._idle_seconds = self._timeout_valid_until = 0.0
        if not received:
            self._on_connection_end(connection)
        if len(received) < SMALL_READ_BYTES or not connection.body:
            self._on_small_read(connection, len(received))
        return True

    def _on_small_read(self, connection: Connection, received: int) -> None:
        """Handle a read of few bytes, or without any body.

        After many of them, there is a pause in which more bytes arrive. Each read costs as much as a large one.

        Raises:
            ChunkedEncodingError: Too many bytes without any body arrived in a row, such as those of trailers.
        """
        if not connection.body:
            self._framing_bytes += received
            if self._framing_bytes > MAX_HEADER_BYTES:
                raise self._truncated("its trailers are too large")
        self._small_reads += 1
        if self._small_reads > MAX_SMALL_READS:
            time.sleep(SMALL_READ_PAUSE)

    def _next_timeout(self) -> float:
        """Return the seconds until the next heartbeat, idle timeout or total timeout, or 0 without any.

        Raises:
            ReadTimeout: The total timeout has expired, although data still arrives.
        """
        if monotonic() >= self._total_deadline:
            self._abandon()
            raise ReadTimeout("the total timeout expired during the response")
        idle = self._deadlines.timeouts.idle
        timeout = self._deadlines.heartbeat_interval or idle
        if idle:
            timeout = min(timeout, max(idle - self._idle_seconds, 0.001))
        return remaining(timeout, self._total_deadline) or 0.0

    def _on_idle(self, seconds: float, error: Exception) -> bool:
        """Return False after `seconds` without data. Raise ReadTimeout if the idle or the total timeout expired."""
        self._idle_seconds += seconds
        idle = self._deadlines.timeouts.idle
        if monotonic() >= self._total_deadline or (idle and self._idle_seconds >= idle):
            self._abandon()
            raise ReadTimeout("the idle or the total timeout expired during the response") from error
        return False

    def _on_connection_end(self, connection: Connection) -> None:
        """Complete a close-delimited response. Raise ChunkedEncodingError for any other and after a cancellation."""
        if self._deadlines.cancellation.is_cancelled or not connection.is_close_delimited:
            raise self._truncated("the connection was closed")
        connection.is_complete, connection.keep_alive = True, False

    def _truncated(self, reason: object) -> ChunkedEncodingError:
        self._abandon()
        return ChunkedEncodingError(f"the response ended before it was complete: {reason}")

    def _decode(self, decoder: Decoder) -> bytes:
        try:
            return decoder.take()
        except zlib.error as error:
            self._abandon()
            raise ContentDecodingError("the response is not compressed as its header states") from error

    def close(self) -> None:
        """End the exchange. Return the connection to the pool if the response is complete, else close it."""
        connection = self._connection
        if connection is None:
            return
        if connection.is_complete and connection.keep_alive and not connection.body:
            self._connection = None
            self._deadlines.cancellation.remove_callback(connection.abort)
            self._pool.release(connection)
        else:
            self._abandon()

    def limit_remaining(self, seconds: float) -> None:
        """Move the total deadline to `seconds` from now, but not behind the original one."""
        self._total_deadline = min(self._latest_deadline, monotonic() + seconds)
        self._timeout_valid_until = 0.0

    def release(self) -> None:
        """Close a response whose content is complete.

        Wait up to `LAST_BYTES_TIMEOUT` for the end of the framing, which lets the pool keep the connection.
        """
        connection = self._connection
        if connection is not None and not connection.is_complete:
            connection.set_read_timeout(LAST_BYTES_TIMEOUT)
            with suppress(OSError, httptools.HttpParserError):
                connection.receive()
        self.close()

    def _abandon(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._deadlines.cancellation.remove_callback(connection.abort)
            connection.close()

    release_conn = close
    """The method that `requests.Response.close` calls."""
