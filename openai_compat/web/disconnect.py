"""Noticing clients that leave, while their request is being worked on and nothing is being written to them."""

from __future__ import annotations

import logging
import select
import threading
import time
from typing import Final

from gevent.monkey import get_original

from ..streams import Cancellation

log = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 0.25

# Linux tells a peer that hung up from one that is merely quiet; elsewhere a full close must do.
_HANG_UP = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
# gevent's stand-in knows no POLLRDHUP; asked without waiting, the original blocks nobody.
_poll = get_original("select", "poll")


class ClientWatch:
    """Looks at the sockets of all waiting clients of this process, four times a second, in one system call.

    A thread (a greenlet, under gevent) that starts with the first client; a request costs two dictionary operations.
    """

    def __init__(self) -> None:
        self._clients: dict[int, Cancellation] = {}
        self._has_clients = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, descriptor: int, cancellation: Cancellation) -> None:
        """Cancels when the peer of the socket `descriptor` leaves, until `remove`."""
        self._clients[descriptor] = cancellation
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="client-watch", daemon=True)
            self._thread.start()
        if not self._has_clients.is_set():
            self._has_clients.set()

    def remove(self, descriptor: int, cancellation: Cancellation) -> None:
        """Ends what `add` began. The descriptor may be the next client's by now: that one is watched on."""
        if self._clients.get(descriptor) is cancellation:
            del self._clients[descriptor]

    def _run(self) -> None:
        while True:
            self._has_clients.wait()
            time.sleep(INTERVAL_SECONDS)
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
            sockets.register(descriptor, _HANG_UP)
        for descriptor, _ in sockets.poll(0):
            cancellation = self._clients.pop(descriptor, None)
            if cancellation is not None:
                cancellation.cancel()
