"""The process of the pipelines: takes its workers' calls, a thread each, and ends when no worker is left.

A worker that hangs up has lost its client: the call's `CancellationToken` ends whatever the pipeline waits for.
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
"""How long the process stays without a worker: a worker that was replaced finds the conversations again."""
HANG_UP: Final = getattr(select, "POLLRDHUP", select.POLLHUP)


def main() -> None:
    """Called with the listener's descriptor as the first argument; the settings come through standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet_haystack()
    path, settings = pickle.load(sys.stdin.buffer)  # noqa: S301 - it comes from the worker that started this process
    configure_logging(settings.log_level, settings.log_format)
    _log_libraries()
    listener = socket.socket(fileno=int(sys.argv[1]))
    listener.setblocking(True)
    PipelineServer(settings, listener, Path(path)).run()


def _log_libraries() -> None:
    """The libraries' warnings go where ours go, but for those about snapshots of failed runs: none are kept."""
    for name in ("haystack", "pypdf"):
        logger = logging.getLogger(name)
        logger.handlers[:] = logging.getLogger(logs.LOGGER).handlers
        logger.setLevel(logging.WARNING)
        logger.propagate = False
    logging.getLogger("haystack.utils.base_serialization").setLevel(logging.CRITICAL)


class PipelineServer:
    """One thread accepts and watches for workers that hang up; each call is answered in a thread of its own."""

    def __init__(self, settings: Settings, listener: socket.socket, path: Path) -> None:
        self._listener = listener
        self._path = path
        self._catalog = PipelineRegistry(settings)
        self._poll = select.poll()
        self._connections: dict[int, _Connection] = {}

    def run(self) -> None:
        self._poll.register(self._listener, select.POLLIN)
        while True:
            events = self._poll.poll(IDLE_TIMEOUT * 1000)
            for descriptor, _ in events:
                if descriptor == self._listener.fileno():
                    self._accept()
                else:
                    self._poll.unregister(descriptor)
                    self._connections.pop(descriptor).end()
            if not events and not self._connections and self._shutdown_if_idle():
                break
        self._catalog.close()

    def _shutdown_if_idle(self) -> bool:
        """Takes the socket away, unless somebody is about to connect."""
        at_once = CancellationToken()
        at_once.cancel()
        try:
            with lock(self._path, at_once):
                if self._poll.poll(0):
                    return False
                self._listener.close()
                self._path.unlink(missing_ok=True)
                return True
        except CallCancelledError:
            return False

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        connection = _Connection(sock, self._catalog)
        self._connections[sock.fileno()] = connection
        self._poll.register(sock, HANG_UP)
        threading.Thread(target=connection.serve, daemon=True).start()


class _Connection:
    """One call of a worker, or its attendance: a connection that is held for as long as the worker lives."""

    def __init__(self, sock: socket.socket, catalog: PipelineRegistry) -> None:
        self._sock = sock
        self._catalog = catalog
        self._cancellation = CancellationToken()

    def serve(self) -> None:
        request = self._read()
        if request is not None and request["op"] == "attend":
            self._send(END)  # it stays open: its end is the worker's to tell
            return
        try:
            if request is not None:
                self._answer(request)
        except ClientDisconnected:
            log.debug("the client left")
        finally:
            self._cancellation.cancel()  # ends whatever the pipeline has left behind
            self._hang_up()

    def _read(self) -> JSON | None:
        try:
            return LineReader(self._sock).read()
        except OSError:
            return None

    def _send(self, message: JSON) -> None:
        """
        Raises:
            Abandoned: nobody waits for the answer any more.
        """
        if self._cancellation.is_cancelled:
            raise ClientDisconnected
        try:
            send_line(self._sock, message)
        except OSError:
            raise ClientDisconnected from None

    def _say(self, delta: ChatDelta, headers: dict[str, str]) -> None:
        """A piece; before it what there is to tell of the request."""
        if headers:
            self._send({ADAPTED: from_header(headers.pop(ADAPTED_HEADER))})
        self._send(delta_to_json(delta))

    def _answer(self, request: JSON) -> None:
        logs.request_id.set(request.get("request_id", "-"))
        try:
            if request["op"] == "describe":
                self._send(self._catalog.describe(request["model"]))
            else:
                headers: dict[str, str] = {}
                self._catalog.chat(request, lambda delta: self._say(delta, headers), self._cancellation, headers)
            self._send(END)
        except Exception as error:  # noqa: BLE001 - whatever a pipeline's components raise; it is logged there
            self._send({"error": error_to_json(to_known_error(error))})

    def end(self) -> None:
        """The worker hung up, or the answer is complete."""
        self._cancellation.cancel()
        self._sock.close()

    def _hang_up(self) -> None:
        """Told to the thread that watches, which alone closes: the number of a closed socket is given to another."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
