"""Reader of a client connection, with time limits on request heads and bodies.

gunicorn's parser takes every byte from here. Only the time that the server waits for the client counts, so that a slow
upstream of a passed-through upload does not use up the client's time.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from math import inf
from typing import TYPE_CHECKING, Final

from gevent.monkey import get_original
from gunicorn.http.unreader import SocketUnreader

from openai_compat.core.errors import OpenAICompatError, RequestTimeoutError

if TYPE_CHECKING:
    from gunicorn.http.message import Request

DRAIN_SECONDS: Final = 10.0
"""Time limit on reading the rest of a body that the application does not need."""
DRAIN_IDLE_SECONDS: Final = 5.0
"""Seconds without data after which that rest is not waited for, as in nginx."""
LARGEST_READ: Final = 1_048_576
SHORTEST_WAIT: Final = 0.001
LONGEST_WAIT: Final = 86_400.0
YIELD_BYTES: Final = 65_536
"""Bytes after which other clients are served, because data that has already arrived is read without a pause."""

# gevent's `shutdown` would make later reads raise an error.
_Socket = get_original("socket", "socket")


class Phase(Enum):
    """What a connection is being read for."""

    IDLE = auto()
    """No part of a request has arrived."""
    HEAD = auto()
    """A part of the request line and headers has arrived."""
    REQUEST = auto()
    """The head is complete. The application reads the body or answers."""
    DRAIN = auto()
    """The rest of a body is being discarded."""


# Python 3.11 looks a member up in its class with a function of its own, three times per request.
IDLE, HEAD, REQUEST, DRAIN = Phase


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Limits on the time that a client takes to send a request.

    A head may take `head_timeout` seconds. A body may take `body_timeout` seconds, and one second more for every
    `body_min_rate` bytes that have arrived.
    """

    head_timeout: float = inf
    body_timeout: float = inf
    body_min_rate: int = 1


class ClientReader(SocketUnreader):
    """Source of the bytes of one connection.

    Attributes:
        since: Time at which the connection was accepted, became idle, or began to discard a body.
        has_served: True after the first complete request.
        is_extra: True if the connection was accepted beyond the worker's limit.
        is_closing: True once the connection was chosen to be closed.
    """

    def __init__(self, sock: socket.socket, limits: ReadLimits) -> None:
        super().__init__(sock)
        self._limits = limits
        self.phase = IDLE
        self.since = time.monotonic()
        self.has_served = self.is_extra = self.is_closing = False
        self._request: Request | None = None
        self._interruption: OpenAICompatError | None = None
        self._wait_started: float | None = None
        self._restart()

    def begin_request(self, request: Request) -> None:
        """Apply the limits on bodies from now on."""
        self._request = request
        self.phase = REQUEST
        if self._received:  # a part of the head
            self._restart()

    def begin_drain(self) -> None:
        """Apply the limits on the discarded rest of a body from now on."""
        self.phase = DRAIN
        self.since = time.monotonic()
        self._restart()

    def end_request(self) -> None:
        """Wait for the next request without a limit. gunicorn limits the idle time of a connection."""
        self._request = None
        self.phase = IDLE
        self.has_served = True
        self.since = time.monotonic()
        if self._received:
            self._restart()

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return the next bytes of the connection, or none at its end.

        Raises:
            RequestTimeoutError: the client is slower than the limits allow. OpenAICompatError: the interruption.
        """
        if self.phase is IDLE:
            data = self.sock.recv(self.mxchunk)
            self.phase = HEAD
            return data
        return self._receive(min(max(size_hint or 0, self.mxchunk), LARGEST_READ))

    def interrupt(self, error: OpenAICompatError) -> None:
        """End the reading of the body with `error`."""
        self._interruption = error
        shutdown_socket(self.sock, socket.SHUT_RD)

    def is_slow(self, seconds: float, rate: float) -> bool:
        """Return True if the server has waited for more than `seconds` and received less than `rate` bytes a second."""
        if self._wait_started is None:
            return False
        waited = self._waited + time.monotonic() - self._wait_started
        return waited > seconds and self._received < waited * rate

    def _restart(self) -> None:
        """Count from zero what the limits of the current phase apply to."""
        self._received = 0
        self._waited = 0.0

    def _receive(self, size: int) -> bytes:
        data = self._wait_for_data(size)
        if not data and self._interruption is not None:
            self._close_after_response()
            raise self._interruption
        before = self._received
        self._received += len(data)
        if before // YIELD_BYTES != self._received // YIELD_BYTES:
            time.sleep(0)
        return data

    def _wait_for_data(self, size: int) -> bytes:
        self._wait_started = started = time.monotonic()
        self.sock.settimeout(self._next_timeout())
        try:
            return self.sock.recv(size)
        except TimeoutError as error:
            self._close_after_response()
            part = "headers" if self.phase is HEAD else "body"
            raise RequestTimeoutError(f"The request {part} did not arrive in time.") from error
        finally:
            self._wait_started = None
            self._waited += time.monotonic() - started
            with suppress(OSError):  # closed meanwhile
                self.sock.settimeout(None)

    def _next_timeout(self) -> float:
        limits = self._limits
        if self.phase is DRAIN:
            seconds = min(DRAIN_SECONDS - self._waited, DRAIN_IDLE_SECONDS)
        elif self.phase is HEAD:
            seconds = limits.head_timeout - self._waited
        else:
            seconds = limits.body_timeout + self._received / limits.body_min_rate - self._waited
        return min(max(seconds, SHORTEST_WAIT), LONGEST_WAIT)

    def _close_after_response(self) -> None:
        """Announce the end of the connection in the response, because the rest of the body may follow."""
        if self._request is not None:
            self._request.force_close()


def shutdown_socket(client: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """Shut the socket down, so that reads return its end as after a client disconnect."""
    native = _Socket(fileno=client.fileno())
    with suppress(OSError):  # the client closed it first
        native.shutdown(how)
    native.detach()
