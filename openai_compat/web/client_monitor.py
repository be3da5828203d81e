"""Detection of client disconnects while a request is processed and nothing is written to the client."""

from __future__ import annotations

import logging
import select
import threading
import time
from typing import Final

from gevent.monkey import get_original

from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import OpenAICompatError

log = logging.getLogger(__name__)

POLL_INTERVAL: Final = 0.25

# Both sides have closed, or the connection broke. The kernel finds that out when something is written to the client.
_CLOSED: Final = select.POLLHUP | select.POLLERR
# The client has closed its sending side. Only Linux reports that. Elsewhere only a full close is noticed.
_HALF_CLOSED: Final = getattr(select, "POLLRDHUP", 0)
# gevent's replacement does not support POLLRDHUP. With a timeout of 0 the original does not block.
_poll = get_original("select", "poll")


class DisconnectMonitor:
    """Monitor of the sockets of all waiting clients of this process, polled four times a second with one system call.

    The thread (a greenlet under gevent) starts with the first client. A request costs two dictionary operations.

    A client that has closed its sending side may have disconnected or may still wait for its response. It counts as
    disconnected, unless `half_close_is_disconnect` is false. Then a disconnect is noticed at the next write.
    """

    def __init__(self, *, half_close_is_disconnect: bool = True) -> None:
        self._event_mask = _CLOSED | _HALF_CLOSED if half_close_is_disconnect else _CLOSED
        self._clients: dict[int, CancellationToken] = {}
        self._has_clients = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, descriptor: int, cancellation: CancellationToken) -> None:
        """Cancel `cancellation` when the client of the socket `descriptor` disconnects, until `remove`."""
        self._clients[descriptor] = cancellation
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="client-monitor", daemon=True)
            self._thread.start()
        if not self._has_clients.is_set():
            self._has_clients.set()

    def remove(self, descriptor: int, cancellation: CancellationToken) -> None:
        """Stop monitoring, unless `descriptor` already belongs to another call with another `cancellation`."""
        if self._clients.get(descriptor) is cancellation:
            del self._clients[descriptor]

    def cancel_all(self, reason: OpenAICompatError) -> None:
        """Cancel all active calls. Their clients receive `reason` as the error."""
        for cancellation in list(self._clients.values()):
            cancellation.cancel(reason)

    def _run(self) -> None:
        while True:
            self._has_clients.wait()
            time.sleep(POLL_INTERVAL)
            try:
                self._poll_once()
            except Exception:  # one failure must not end the monitoring of all later clients
                log.exception("polling the client sockets failed")
            if not self._clients:
                self._has_clients.clear()
                if self._clients:  # added in between
                    self._has_clients.set()

    def _poll_once(self) -> None:
        poll = _poll()
        for descriptor in list(self._clients):
            poll.register(descriptor, self._event_mask)
        for descriptor, _ in poll.poll(0):
            cancellation = self._clients.pop(descriptor, None)
            if cancellation is not None:
                cancellation.cancel()
