"""The body of an upstream's answer, as it arrives on a connection of the transport's."""

from __future__ import annotations

import zlib
from contextlib import suppress
from time import monotonic
from typing import Final

import httptools
from requests.exceptions import ChunkedEncodingError, ContentDecodingError, ReadTimeout

from .pool import Connection, ConnectionPool, Deadlines, remaining

LAST_BYTES_TIMEOUT: Final = 0.05
"""How long the end of the framing may lag behind the last event before the connection is given up."""


class _Decoder:
    """Undoes gzip and deflate, which zlib tells apart by itself (47), however many members follow each other."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(47)
        self.is_inside = False

    def decode(self, data: bytes) -> bytes:
        decoded = []
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(47)
            decoded.append(self._member.decompress(data))
            data = self._member.unused_data
        self.is_inside = not self._member.eof
        return b"".join(decoded)


class ResponseBody:
    """The answer's body as it arrives: what `Response.raw` is."""

    def __init__(self, connection: Connection, pool: ConnectionPool, patience: Deadlines, deadline: float) -> None:
        self._connection: Connection | None = connection
        self._pool = pool
        self._patience = patience
        self._deadline = deadline
        self._quiet_seconds = 0.0
        self._wait = self._same_wait_until = 0.0
        # We ask for no compression: a peer that compresses does so unasked, and nobody after us is to know.
        encoding = connection.headers.get("content-encoding", "").lower()
        is_decoded = encoding in {"gzip", "x-gzip", "deflate"} and connection.may_have_body
        self._decoder = _Decoder() if is_decoded else None
        if is_decoded:
            for name in ("content-encoding", "content-length", "etag"):
                connection.headers.pop(name, None)

    def read1(self, _amount: int = -1) -> bytes | None:
        """The next bytes there are; b"" at the end, None when the silence lasted for `heartbeat_interval`.

        Raises:
            ReadTimeout: quiet for too long, or the whole call took too long.
            ChunkedEncodingError: the answer broke off before its end.
            ContentDecodingError: it is not compressed as it says.
        """
        connection = self._connection
        if connection is None:
            return b""
        while True:
            while not connection.body:
                if connection.is_complete:
                    return self._end_of_body()
                if not self._receive(connection):
                    return None
            data = connection.body[0] if len(connection.body) == 1 else b"".join(connection.body)
            connection.body.clear()
            if self._decoder is None:
                return data
            if decoded := self._decoded(self._decoder, data):
                return decoded

    def _end_of_body(self) -> bytes:
        if self._decoder is not None and self._decoder.is_inside:
            raise self._broken("what was compressed has no end")
        self.close()
        return b""

    def _receive(self, connection: Connection) -> bool:
        """Waits for more; False when it was silent for so long that the caller should hear of it."""
        if self._quiet_seconds or monotonic() > self._same_wait_until:
            self._wait = self._next_wait()
            self._same_wait_until = self._deadline - self._wait
            connection.set_read_timeout(self._wait or None)
        try:
            has_more = connection.receive()
        except TimeoutError as error:
            return self._on_idle(self._wait, error)
        except (OSError, httptools.HttpParserError) as error:
            raise self._broken(error) from error
        if self._quiet_seconds:
            self._quiet_seconds = self._same_wait_until = 0.0
        if not has_more:
            self._end(connection)
        return True

    def _next_wait(self) -> float:
        """How long the next bytes may take before something has to be said or done; 0 for as long as they like."""
        idle = self._patience.timeouts.idle
        wait = self._patience.heartbeat_interval or idle
        if idle:
            wait = min(wait, max(idle - self._quiet_seconds, 0.001))
        return remaining(wait, self._deadline) or 0.0

    def _on_idle(self, seconds: float, error: Exception) -> bool:
        self._quiet_seconds += seconds
        idle = self._patience.timeouts.idle
        if monotonic() >= self._deadline or (idle and self._quiet_seconds >= idle):
            self._abandon()
            raise ReadTimeout("the answer stopped for too long") from error
        return False

    def _end(self, connection: Connection) -> None:
        if self._patience.cancellation.is_cancelled or not connection.ends_with_connection:
            raise self._broken("the connection was closed")
        connection.is_complete, connection.keep_alive = True, False

    def _broken(self, reason: object) -> ChunkedEncodingError:
        self._abandon()
        return ChunkedEncodingError(f"the answer broke off: {reason}")

    def _decoded(self, decoder: _Decoder, data: bytes) -> bytes:
        try:
            return decoder.decode(data)
        except zlib.error as error:
            self._abandon()
            raise ContentDecodingError("the answer is not compressed as it says") from error

    def close(self) -> None:
        """Ends the exchange: a whole answer gives its connection back, any other breaks it off."""
        connection = self._connection
        if connection is None:
            return
        if connection.is_complete and connection.keep_alive and not connection.body:
            self._connection = None
            self._patience.cancellation.remove_callback(connection.abort)
            self._pool.release(connection)
        else:
            self._abandon()

    def limit_remaining(self, seconds: float) -> None:
        """Leaves no more than `seconds` for what is still to come."""
        self._deadline = min(self._deadline, monotonic() + seconds)
        self._same_wait_until = 0.0

    def release(self) -> None:
        """`close`, for a reader that knows by the content that all of it has come.

        The end of the framing is then a moment away, and waiting for it saves the connection.
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
            self._patience.cancellation.remove_callback(connection.abort)
            connection.close()

    release_conn = close
    """The name that `requests.Response.close` knows."""
