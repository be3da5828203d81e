"""Noticing clients that leave, while their request is being worked on and nothing is being written to them."""

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

# Both sides have closed, or the connection broke: found when something was written to a peer that is gone.
_CLOSED: Final = select.POLLHUP | select.POLLERR
# Linux tells a peer that sends no more from one that is merely quiet; elsewhere a full close must do.
_SENDS_NO_MORE: Final = getattr(select, "POLLRDHUP", 0)
# gevent's stand-in knows no POLLRDHUP; asked without waiting, the original blocks nobody.
_poll = get_original("select", "poll")


class DisconnectMonitor:
    """Looks at the sockets of all waiting clients of this process, four times a second, in one system call.

    A thread (a greenlet, under gevent) that starts with the first client; a request costs two dictionary operations.

    A client that has closed its sending side looks the same whether it has left or waits for its answer. It counts as
    gone, unless `half_close_is_disconnect` is false: then one that has left is noticed when next something is written
    to it.
    """

    def __init__(self, *, half_close_is_disconnect: bool = True) -> None:
        self._hang_up = _CLOSED | _SENDS_NO_MORE if half_close_is_disconnect else _CLOSED
        self._clients: dict[int, CancellationToken] = {}
        self._has_clients = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, descriptor: int, cancellation: CancellationToken) -> None:
        """Cancels when the peer of the socket `descriptor` leaves, until `remove`."""
        self._clients[descriptor] = cancellation
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="client-watch", daemon=True)
            self._thread.start()
        if not self._has_clients.is_set():
            self._has_clients.set()

    def remove(self, descriptor: int, cancellation: CancellationToken) -> None:
        """Ends what `add` began. The descriptor may be the next client's by now: that one is watched on."""
        if self._clients.get(descriptor) is cancellation:
            del self._clients[descriptor]

    def cancel_all(self, reason: OpenAICompatError) -> None:
        """Cancels every call that is under way; its client is told the reason."""
        for cancellation in list(self._clients.values()):
            cancellation.cancel(reason)

    def _run(self) -> None:
        while True:
            self._has_clients.wait()
            time.sleep(POLL_INTERVAL)
            try:
                self._look()
            except Exception:  # what fails once must not leave all later clients unwatched
                log.exception("a look at the clients' sockets failed")
            if not self._clients:
                self._has_clients.clear()
                if self._clients:  # one came in between
                    self._has_clients.set()

    def _look(self) -> None:
        sockets = _poll()
        for descriptor in list(self._clients):
            sockets.register(descriptor, self._hang_up)
        for descriptor, _ in sockets.poll(0):
            cancellation = self._clients.pop(descriptor, None)
            if cancellation is not None:
                cancellation.cancel()
