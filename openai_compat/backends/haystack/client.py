"""The process of the pipelines as its workers see it: found or started, called, and given up.

All workers of a server share one such process, by the server's id. It is started by the first call that needs it, and
ends by itself when no worker is connected any more. Nothing here imports Haystack.
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
# The path of modules as this process has it, also where it was not made by the environment.
BOOTSTRAP: Final = (
    "import sys; sys.path[:] = sys.argv[2:]; from openai_compat.sidecars.haystack.server import main; main()"
)


class SidecarClient:
    """A worker's way to the process of the pipelines."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keepalive_socket: socket.socket | None = None
        self._started: subprocess.Popen[bytes] | None = None

    def call(self, request: Mapping[str, Any], context: CallContext, timeouts: Timeouts) -> PipelineCall:
        """Sends a request; its answer is read from what is returned.

        Raises:
            CallCancelledError
            InternalError: the process cannot be started.
        """
        context.cancellation.raise_if_cancelled()
        sock = self._connect() if self._keepalive_socket is not None else None
        if sock is None:
            self._keep_alive(context.cancellation)
            sock = self._connect()
        if sock is None:
            raise InternalError("The process of the pipelines cannot be reached.")
        return PipelineCall(sock, request, context, timeouts)

    def close(self) -> None:
        """This worker needs the process no longer; the last one to say so ends it."""
        if self._keepalive_socket is not None:
            self._keepalive_socket.close()
            self._keepalive_socket = None

    @property
    def _path(self) -> Path:
        name = hashlib.sha256(self._settings.server_id.encode()).hexdigest()[:24]
        return _private_folder() / f"{name}.sock"

    def _connect(self) -> socket.socket | None:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(str(self._path))
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return None
        return sock

    def _keep_alive(self, cancellation: CancellationToken) -> None:
        """Makes sure that the process runs, and that it goes on running for this worker."""
        with lock(self._path, cancellation):
            if not self._connect_and_attend():
                self._start()
                if not self._connect_and_attend():
                    raise InternalError("The process of the pipelines could not be started.")

    def _connect_and_attend(self) -> bool:
        sock = self._connect()
        if sock is None:
            return False
        sock.settimeout(START_TIMEOUT)
        try:
            send_line(sock, {"op": "attend"})
            is_there = LineReader(sock).read() is not None
        except OSError:
            is_there = False
        if not is_there:
            sock.close()
            return False
        self.close()
        self._keepalive_socket = sock
        return True

    def _start(self) -> None:
        """The listener is made here and handed down: whoever connects waits in its queue until it is accepted."""
        path = self._path
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(BACKLOG)
        command = [sys.executable, "-c", BOOTSTRAP, str(listener.fileno()), *sys.path]
        process = self._started = subprocess.Popen(  # noqa: S603 - no word of it is foreign
            command,
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            # Ctrl-C in the terminal is for the server; this process ends when its workers have.
            start_new_session=True,
        )
        listener.close()
        with suppress(BrokenPipeError), cast("IO[bytes]", process.stdin) as stdin:
            pickle.dump((str(path), self._settings), stdin)
        log.info("the process of the pipelines was started", extra={"fields": {"pid": process.pid}})


class PipelineCall(Iterator["JSON | Heartbeat"]):
    """An answer under way: its messages, each as it comes. `close()` ends the work behind it."""

    def __init__(
        self, sock: socket.socket, request: Mapping[str, Any], context: CallContext, timeouts: Timeouts
    ) -> None:
        self._sock = sock
        self._lines = LineReader(sock)
        self._cancellation = context.cancellation
        self._silence_seconds = context.heartbeat_interval
        self._idle = timeouts.idle
        self._deadline = _deadline(timeouts.total)
        self._piece_deadline = _deadline(timeouts.first_byte)
        self._is_over = False
        self._cancellation.on_cancel(self._hang_up)
        try:
            send_line(sock, request)
        except OSError:  # it ended just now, and is told so below
            self._hang_up()

    def __next__(self) -> JSON | Heartbeat:
        """
        Raises:
            OpenAICompatError: what the process says went wrong, or its end in the middle of the answer.
        """
        if self._is_over:
            raise StopIteration
        try:
            message = self._read()
        except BaseException:
            self.close()
            raise
        if isinstance(message, Heartbeat):
            return message
        self._piece_deadline = _deadline(self._idle)
        if "error" in message:
            self.close()
            raise error_from_json(message["error"])
        if "end" in message:
            self.close()
            raise StopIteration
        return message

    def _read(self) -> JSON | Heartbeat:
        limit = min(self._deadline, self._piece_deadline) - time.monotonic()
        is_silence = bool(self._silence_seconds) and self._silence_seconds < limit
        wait = self._silence_seconds if is_silence else limit
        self._sock.settimeout(None if wait == float("inf") else max(wait, 0.001))
        try:
            message = self._lines.read()
        except TimeoutError:
            if is_silence:
                return HEARTBEAT
            raise UpstreamTimeoutError("The pipeline did not answer within the time limit.") from None
        except OSError:
            message = None
        if self._cancellation.is_cancelled:
            raise CallCancelledError
        if message is None:
            raise UpstreamTruncatedError("The process of the pipelines ended before the answer was complete.")
        return message

    def _hang_up(self) -> None:
        with suppress(OSError):  # it was closed already
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._is_over = True
        self._cancellation.remove_callback(self._hang_up)
        self._sock.close()


def _deadline(seconds: float) -> float:
    return time.monotonic() + seconds if seconds else float("inf")


def _private_folder() -> Path:
    """Where the sockets are: nobody else may connect, or put a socket of theirs in our place."""
    folder = Path(tempfile.gettempdir()) / f"openai-compat-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o077 or not folder.is_dir() or folder.is_symlink():
        raise InternalError("The folder for the pipelines' socket belongs to somebody else.")
    return folder


@contextmanager
def lock(path: Path, cancellation: CancellationToken) -> Iterator[None]:
    """Held while the socket at `path` is made or taken away; those who wait stop waiting when their clients leave."""
    with (path.parent / "lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                cancellation.wait(LOCK_POLL_INTERVAL)
        yield
