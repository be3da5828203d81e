"""Rule for sending a request again after it failed on a reused connection."""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
from typing import Final

from requests import PreparedRequest

from .connection import Connection

SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
IDEMPOTENCY_KEY: Final = "idempotency-key"


class ClosedConnectionError(ConnectionError):
    """The upstream closed the connection in order (FIN), without a response."""


def may_send_again(connection: Connection, request: PreparedRequest, error: Exception) -> bool:
    """Return True if the request may be sent once more after `error` on this connection, which must still be open.

    The upstream sent nothing in reply. The request is safe to repeat, or carries the client's `Idempotency-Key`, or the
    upstream provably received no byte of it.
    """
    if not (connection.is_reused and connection.is_unanswered):
        return False
    is_harmless = request.method in SAFE_METHODS or IDEMPOTENCY_KEY in request.headers
    is_unsent = not connection.sent_bytes
    return is_harmless or is_unsent or (isinstance(error, ClosedConnectionError) and was_not_received(connection))


def was_not_received(connection: Connection) -> bool:
    """Return True if the upstream closed the connection before it received any byte of the request.

    Its FIN acknowledges all that it had received before. So the request arrived too late if all of its bytes are still
    unacknowledged. A reset proves nothing, as the kernel discards what it acknowledges. TLS adds some bytes to each
    record, which are fewer than the first record has. Unknown systems and Unix sockets give no proof.
    """
    if connection.sock.family == socket.AF_UNIX:
        return False
    try:
        unacknowledged = fcntl.ioctl(connection.sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return False
    return int.from_bytes(unacknowledged, sys.byteorder) >= connection.sent_bytes
