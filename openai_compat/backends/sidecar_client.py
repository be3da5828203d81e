"""Client of a sidecar, a process beside the workers that serves models over a Unix socket."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final

from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import ModelBusyError, ModelUnavailableError

from .runtime_dir import RuntimeDir, is_locked, lock_shared, make_private_folder

log = logging.getLogger(__name__)

START_TIMEOUT: Final = 60.0
"""Seconds. An interpreter starts within a second or two, also on a busy machine."""
POLL_INTERVAL: Final = 0.05


class SidecarClient(ABC):
    """Client in each worker, which starts the sidecar on demand and keeps it running.

    All workers of a server share one sidecar for each `identity`. The sidecar ends with its server, or when no worker
    has used it for a while.
    """

    title: ClassVar[str]
    """The sidecar's name in messages."""

    def __init__(self, runtime_path: Path, identity: str) -> None:
        self._runtime_dir = RuntimeDir(runtime_path, identity)
        self._process: subprocess.Popen[bytes] | None = None
        self._process_lock = threading.Lock()
        self._held_locks: list[int] = []

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return the command that runs the sidecar. The path of the runtime directory is appended to it."""

    @abstractmethod
    def configuration(self) -> bytes:
        """Return what the sidecar reads from its standard input."""

    @property
    def url(self) -> str:
        """The base URL of the sidecar's API."""
        return self._runtime_dir.url

    @property
    def socket_exists(self) -> bool:
        """Return True if the sidecar's socket exists. The process that made it may have ended."""
        return self._runtime_dir.socket.exists()

    @property
    def is_joined(self) -> bool:
        """Return True if this client holds the locks that keep the sidecar running."""
        return bool(self._held_locks)

    def start(self, cancellation: CancellationToken) -> None:
        """Take the locks, start the sidecar unless it runs, and wait until it listens.

        Only one sidecar runs for all workers. A second one ends at once, because the first one holds its lock.

        Raises:
            ModelUnavailableError: the runtime directory cannot be used.
            ModelBusyError: the sidecar ended at once, or does not listen within `START_TIMEOUT`.
            CallCancelledError
        """
        deadline = time.monotonic() + START_TIMEOUT
        self._acquire_locks()
        earlier = self._process
        while not self._is_listening():
            self._spawn_unless_running(earlier)
            if time.monotonic() > deadline:
                raise ModelBusyError(f"The {self.title} is still starting. Please try again later.")
            cancellation.wait(POLL_INTERVAL)

    def close(self) -> None:
        """Release the locks. The sidecar ends when the last process of the server has released its own."""
        while self._held_locks:
            os.close(self._held_locks.pop())

    def _is_listening(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.connect(str(self._runtime_dir.socket))
            return True
        return False

    def _spawn_unless_running(self, earlier: subprocess.Popen[bytes] | None) -> None:
        """Start the sidecar unless it is starting. The end of an `earlier` process is not a failed start."""
        with self._process_lock:
            exit_code = None if self._process is None else self._process.poll()
            if self._process is not None and exit_code is None:
                return
            if exit_code and self._process is not earlier:
                raise ModelBusyError(f"The {self.title} does not start. The server's log has the cause.")
            # Here none was started yet, or it ended with 0 because another worker's sidecar was first.
            if not is_locked(self._runtime_dir.sidecar_lock):
                self._spawn()

    def _acquire_locks(self) -> None:
        """Create the runtime directory and lock it, which tells the sidecar that a worker uses it."""
        with self._process_lock:
            if self._held_locks:
                return
            try:
                make_private_folder(self._runtime_dir.path)
                self._held_locks = [
                    lock_shared(self._runtime_dir.server_lock),
                    lock_shared(self._runtime_dir.users_lock),
                ]
            except OSError as error:
                log.error("the runtime directory of the %s cannot be used: %s", self.title, error)
                raise ModelUnavailableError(f"The runtime directory of the {self.title} cannot be used.") from error

    def _spawn(self) -> None:
        """Start the sidecar in a session of its own.

        Ctrl-C in the server's terminal then reaches only the server, which still has streams to finish.
        """
        log.info("starting the %s", self.title)
        command = [*self.command(), str(self._runtime_dir.path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 - our own
        if self._process.stdin is not None:
            with suppress(BrokenPipeError), self._process.stdin as stdin:
                stdin.write(self.configuration())
