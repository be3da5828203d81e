"""Client of the Haystack sidecar. It starts the process when needed and sends calls to it.

All workers of a server share one sidecar, found by the server's id. The first call that needs the sidecar starts it.
The sidecar ends when no worker is connected. This module never imports Haystack.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, cast

from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import CallCancelledError, InternalError, UpstreamTimeoutError, UpstreamTruncatedError
from openai_compat.core.settings import Settings, Timeouts
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import CallContext

from .protocol import JSON, LineReader, error_from_json, send_line

log = logging.getLogger(__name__)

START_TIMEOUT: Final = 60.0
LOCK_POLL_INTERVAL: Final = 0.05
BACKLOG: Final = 2048
# The sidecar gets this process's `sys.path`, which may differ from what the environment alone would produce.
BOOTSTRAP: Final = (
    "import sys; sys.path[:] = sys.argv[2:]; from openai_compat.sidecars.haystack.server import main; main()"
)


class SidecarClient:
    """A worker's client of the Haystack sidecar."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keepalive_socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, request: Mapping[str, Any], context: CallContext, timeouts: Timeouts) -> PipelineCall:
        """Send a request and return an iterator over the messages of its answer.

        Raises:
            CallCancelledError
            InternalError: the sidecar cannot be started.
        """
        context.cancellation.raise_if_cancelled()
        sock = self._connect() if self._keepalive_socket is not None else None
        if sock is None:
            self._ensure_running(context.cancellation)
            sock = self._connect()
        if sock is None:
            raise InternalError("The Haystack sidecar cannot be reached.")
        return PipelineCall(sock, request, context, timeouts)

    def close(self) -> None:
        """Close the keep-alive connection. The sidecar ends when the last worker has closed its own."""
        if self._keepalive_socket is not None:
            self._keepalive_socket.close()
            self._keepalive_socket = None

    @property
    def _socket_path(self) -> Path:
        name = hashlib.sha256(self._settings.server_id.encode()).hexdigest()[:24]
        return _private_directory() / f"{name}.sock"

    def _connect(self) -> socket.socket | None:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(str(self._socket_path))
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return None
        return sock

    def _ensure_running(self, cancellation: CancellationToken) -> None:
        """Start the sidecar unless it runs, and open the connection that keeps it running for this worker."""
        with lock(self._socket_path, cancellation):
            if not self._open_keepalive():
                self._start()
                if not self._open_keepalive():
                    raise InternalError("The Haystack sidecar could not be started.")

    def _open_keepalive(self) -> bool:
        sock = self._connect()
        if sock is None:
            return False
        sock.settimeout(START_TIMEOUT)
        try:
            send_line(sock, {"op": "keep_alive"})
            is_running = LineReader(sock).read() is not None
        except OSError:
            is_running = False
        if not is_running:
            sock.close()
            return False
        self.close()
        self._keepalive_socket = sock
        return True

    def _start(self) -> None:
        """Start the sidecar with an inherited listening socket, so that connections queue until it accepts them."""
        path = self._socket_path
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(BACKLOG)
        command = [sys.executable, "-c", BOOTSTRAP, str(listener.fileno()), *sys.path]
        process = self._process = subprocess.Popen(  # noqa: S603 - no argument comes from outside
            command,
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            # A new session keeps the terminal's Ctrl-C from the sidecar, which ends after its workers.
            start_new_session=True,
        )
        listener.close()
        with suppress(BrokenPipeError), cast("IO[bytes]", process.stdin) as stdin:
            pickle.dump((str(path), self._settings), stdin)
        log.info("Haystack sidecar started", extra={"fields": {"pid": process.pid}})


class PipelineCall(Iterator["JSON | Heartbeat"]):
    """An iterator over the messages of one answer. `close()` ends the work in the sidecar."""

    def __init__(
        self, sock: socket.socket, request: Mapping[str, Any], context: CallContext, timeouts: Timeouts
    ) -> None:
        self._sock = sock
        self._lines = LineReader(sock)
        self._cancellation = context.cancellation
        self._heartbeat_interval = context.heartbeat_interval
        self._idle_timeout = timeouts.idle
        self._deadline = _deadline(timeouts.total)
        self._message_deadline = _deadline(timeouts.first_byte)
        self._is_closed = False
        self._cancellation.on_cancel(self._disconnect)
        try:
            send_line(sock, request)
        except OSError:  # the sidecar has just ended, which the first read reports
            self._disconnect()

    def __next__(self) -> JSON | Heartbeat:
        """Return the next message, or `HEARTBEAT` after an idle gap of the heartbeat interval.

        Raises:
            CallCancelledError
            UpstreamTimeoutError: a time limit has passed.
            UpstreamTruncatedError: the sidecar ended before the answer was complete.
            OpenAICompatError: the error that the sidecar reported.
        """
        if self._is_closed:
            raise StopIteration
        try:
            message = self._read()
        except BaseException:
            self.close()
            raise
        if isinstance(message, Heartbeat):
            return message
        self._message_deadline = _deadline(self._idle_timeout)
        if "error" in message:
            self.close()
            raise error_from_json(message["error"])
        if "end" in message:
            self.close()
            raise StopIteration
        return message

    def _read(self) -> JSON | Heartbeat:
        remaining = min(self._deadline, self._message_deadline) - time.monotonic()
        is_heartbeat_next = bool(self._heartbeat_interval) and self._heartbeat_interval < remaining
        timeout = self._heartbeat_interval if is_heartbeat_next else remaining
        self._sock.settimeout(None if timeout == float("inf") else max(timeout, 0.001))
        try:
            message = self._lines.read()
        except TimeoutError:
            if is_heartbeat_next:
                return HEARTBEAT
            raise UpstreamTimeoutError("The pipeline did not answer within the time limit.") from None
        except OSError:
            message = None
        if self._cancellation.is_cancelled:
            raise CallCancelledError
        if message is None:
            raise UpstreamTruncatedError("The Haystack sidecar ended before the answer was complete.")
        return message

    def _disconnect(self) -> None:
        with suppress(OSError):  # already closed
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._is_closed = True
        self._cancellation.remove_callback(self._disconnect)
        self._sock.close()


def _deadline(seconds: float) -> float:
    return time.monotonic() + seconds if seconds else float("inf")


def _private_directory() -> Path:
    """Return the directory of the sockets, which no other user may enter.

    Raises:
        InternalError: the directory belongs to another user or is open to others.
    """
    folder = Path(tempfile.gettempdir()) / f"openai-compat-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or not folder.is_dir() or folder.is_symlink():
        raise InternalError("The directory for the sidecar's socket is not private to this user.")
    return folder


@contextmanager
def lock(path: Path, cancellation: CancellationToken) -> Iterator[None]:
    """Hold the lock for creating or removing the socket at `path`.

    Raises:
        CallCancelledError: the client disconnected while this call waited for the lock.
    """
    with (path.parent / "lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                cancellation.wait(LOCK_POLL_INTERVAL)
        yield
