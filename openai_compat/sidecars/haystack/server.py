"""Server of the Haystack sidecar. It answers each call in a thread and ends when no worker is connected.

A worker closes the connection of a call when the client disconnects. The server then cancels the call's
`CancellationToken`, which ends any upstream request that the pipeline waits for.
"""

from __future__ import annotations

import logging
import pickle
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from openai_compat.backends.haystack.client import lock
from openai_compat.backends.haystack.protocol import (
    ADAPTED,
    END,
    JSON,
    LineReader,
    delta_to_json,
    error_to_json,
    send_line,
)
from openai_compat.config.environment import quiet_haystack
from openai_compat.core import logging as logs
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import CallCancelledError
from openai_compat.core.logging import configure_logging
from openai_compat.core.profiles import ADAPTED_HEADER, from_header
from openai_compat.core.settings import Settings
from openai_compat.core.types import ChatDelta

from .errors import ClientDisconnected, to_known_error
from .registry import PipelineRegistry

log = logging.getLogger(__name__)

IDLE_TIMEOUT: Final = 3.0
"""Seconds without a connection before the process ends. A replacement worker that connects within this time keeps the
stored conversations.
"""
DISCONNECT_EVENT: Final = getattr(select, "POLLRDHUP", select.POLLHUP)


def main() -> None:
    """Run the sidecar. The first argument is the listener's descriptor. The settings come through standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet_haystack()
    path, settings = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by the worker that started this process
    configure_logging(settings.log_level, settings.log_format)
    _log_libraries()
    listener = socket.socket(fileno=int(sys.argv[1]))
    listener.setblocking(True)
    PipelineServer(settings, listener, Path(path)).run()


def _log_libraries() -> None:
    """Send the libraries' warnings to this server's log, except those about snapshots of failed runs."""
    for name in ("haystack", "pypdf"):
        logger = logging.getLogger(name)
        logger.handlers[:] = logging.getLogger(logs.LOGGER).handlers
        logger.setLevel(logging.WARNING)
        logger.propagate = False
    # No snapshots are kept.
    logging.getLogger("haystack.utils.base_serialization").setLevel(logging.CRITICAL)


class PipelineServer:
    """Server with one thread that accepts connections and detects disconnects, and one thread for each call."""

    def __init__(self, settings: Settings, listener: socket.socket, path: Path) -> None:
        self._listener = listener
        self._path = path
        self._registry = PipelineRegistry(settings)
        self._poll = select.poll()
        self._connections: dict[int, _Connection] = {}

    def run(self) -> None:
        """Serve until no worker has been connected for `IDLE_TIMEOUT` seconds."""
        self._poll.register(self._listener, select.POLLIN)
        while True:
            events = self._poll.poll(IDLE_TIMEOUT * 1000)
            for descriptor, _ in events:
                if descriptor == self._listener.fileno():
                    self._accept()
                else:
                    self._poll.unregister(descriptor)
                    self._connections.pop(descriptor).close()
            if not events and not self._connections and self._shutdown_if_idle():
                break
        self._registry.close()

    def _shutdown_if_idle(self) -> bool:
        """Remove the socket and return True, unless a worker is connecting or holds the lock to connect."""
        no_wait = CancellationToken()
        no_wait.cancel()
        try:
            with lock(self._path, no_wait):
                if self._poll.poll(0):
                    return False
                self._listener.close()
                self._path.unlink(missing_ok=True)
                return True
        except CallCancelledError:
            return False

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        connection = _Connection(sock, self._registry)
        self._connections[sock.fileno()] = connection
        self._poll.register(sock, DISCONNECT_EVENT)
        threading.Thread(target=connection.serve, daemon=True).start()


class _Connection:
    """A worker's connection, either for one call or kept open for the lifetime of the worker."""

    def __init__(self, sock: socket.socket, registry: PipelineRegistry) -> None:
        self._sock = sock
        self._registry = registry
        self._cancellation = CancellationToken()

    def serve(self) -> None:
        """Read the request and answer it."""
        request = self._read()
        if request is not None and request["op"] == "keep_alive":
            self._send(END)  # the connection stays open until the worker closes it
            return
        try:
            if request is not None:
                self._answer(request)
        except ClientDisconnected:
            log.debug("the client disconnected")
        finally:
            self._cancellation.cancel()  # ends requests that the pipeline has left open
            self._disconnect()

    def close(self) -> None:
        """Cancel the call and close the socket, after the worker disconnected or the answer was sent."""
        self._cancellation.cancel()
        self._sock.close()

    def _read(self) -> JSON | None:
        try:
            return LineReader(self._sock).read()
        except OSError:
            return None

    def _send(self, message: JSON) -> None:
        """Send a message.

        Raises:
            ClientDisconnected: the worker has closed the connection.
        """
        if self._cancellation.is_cancelled:
            raise ClientDisconnected
        try:
            send_line(self._sock, message)
        except OSError:
            raise ClientDisconnected from None

    def _send_delta(self, delta: ChatDelta, headers: dict[str, str]) -> None:
        """Send a delta. Adaptations recorded in `headers` are sent before it, and once."""
        if headers:
            self._send({ADAPTED: from_header(headers.pop(ADAPTED_HEADER))})
        self._send(delta_to_json(delta))

    def _answer(self, request: JSON) -> None:
        logs.request_id.set(request.get("request_id", "-"))
        try:
            if request["op"] == "describe":
                self._send(self._registry.describe(request["model"]))
            else:
                headers: dict[str, str] = {}
                self._registry.chat(
                    request, lambda delta: self._send_delta(delta, headers), self._cancellation, headers
                )
            self._send(END)
        except Exception as error:  # noqa: BLE001 - components raise anything; `to_known_error` logs it
            self._send({"error": error_to_json(to_known_error(error))})

    def _disconnect(self) -> None:
        """Shut the socket down and leave closing to the polling thread.

        Closing here would free the descriptor for another connection while the polling thread still watches it.
        """
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
