"""Client of the engine process in each worker, which knows its address and starts it on demand."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Final

from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import ModelBusyError, ModelUnavailableError
from openai_compat.core.extras import install_hint
from openai_compat.core.settings import Settings

from .engine_config import EngineConfig, missing_library, to_engine_config
from .runtime_dir import PREFIX, RuntimeDir, lock_shared, temporary_parent

log = logging.getLogger(__name__)

START_TIMEOUT: Final = 60.0
"""Seconds. An interpreter starts within a second or two, also on a busy machine."""
POLL_INTERVAL: Final = 0.05


class EngineClient:
    """Client of the engine that serves all local models of an application. It does nothing until one is used."""

    def __init__(self, settings: Settings) -> None:
        self.config: EngineConfig = to_engine_config(settings)
        self._runtime_dir = RuntimeDir(_runtime_path(settings), self.config.identity)
        self._process: subprocess.Popen[bytes] | None = None
        self._process_lock = threading.Lock()
        self._held_locks: list[int] = []

    @property
    def url(self) -> str:
        """The base URL of the engine's API."""
        return self._runtime_dir.url

    @property
    def socket_exists(self) -> bool:
        """Return True if the engine's socket exists. The process that made it may have ended."""
        return self._runtime_dir.socket.exists()

    @property
    def blocker(self) -> str | None:
        """The reason why the engine cannot be started, as a sentence, or None."""
        missing = missing_library(self.config.loader)
        if missing is None:
            return None
        return f"Local models need '{missing}', which is not installed. It comes with {install_hint('local')}"

    def start(self, cancellation: CancellationToken) -> None:
        """Start the engine unless it runs, and wait until it listens.

        Only one engine runs for all workers. A second one ends at once, because the first one holds its lock.

        Raises:
            ModelUnavailableError: a library that it needs is not installed, or the runtime directory cannot be used.
            ModelBusyError: it ended at once, or does not listen within `START_TIMEOUT`.
            CallCancelledError
        """
        if (blocker := self.blocker) is not None:
            raise ModelUnavailableError(blocker)
        deadline = time.monotonic() + START_TIMEOUT
        self._forget_exited()
        while not self._is_listening():
            self._spawn_unless_running()
            if time.monotonic() > deadline:
                raise ModelBusyError("The engine for local models is still starting. Please try again later.")
            cancellation.wait(POLL_INTERVAL)

    def preload(self) -> None:
        """Start the engine in the background if the settings list models to preload."""
        if self.config.preload:
            threading.Thread(target=self._start_and_log_errors, name="start-engine", daemon=True).start()

    def close(self) -> None:
        """Release the locks. The engine ends when the last process of the server has released its own."""
        while self._held_locks:
            os.close(self._held_locks.pop())

    def _start_and_log_errors(self) -> None:
        try:
            self.start(CancellationToken())
        except (ModelUnavailableError, ModelBusyError) as error:
            log.error("PRELOAD_MODELS: %s", error.message)

    def _is_listening(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.connect(str(self._runtime_dir.socket))
            return True
        return False

    def _forget_exited(self) -> None:
        """Drop the process of an earlier start if it has ended, so that it does not count as a failed start."""
        with self._process_lock:
            if self._process is not None and self._process.poll() is not None:
                self._process = None

    def _spawn_unless_running(self) -> None:
        with self._process_lock:
            exit_code = None if self._process is None else self._process.poll()
            if self._process is not None and exit_code is None:
                return
            if exit_code:
                raise ModelBusyError("The engine for local models does not start. The server's log has the cause.")
            # Either none was started yet, or it ended with 0 because another worker's engine was first.
            self._acquire_locks()
            self._spawn()

    def _acquire_locks(self) -> None:
        """Create the runtime directory and lock it, which tells the engine that its server runs."""
        try:
            self._runtime_dir.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._held_locks:
                self._held_locks = [
                    lock_shared(self._runtime_dir.server_lock),
                    lock_shared(self._runtime_dir.users_lock),
                ]
        except OSError as error:
            log.error("the engine's runtime directory cannot be used: %s", error)
            raise ModelUnavailableError(
                "The runtime directory of the engine for local models cannot be used."
            ) from error

    def _spawn(self) -> None:
        """Start the engine in a session of its own.

        Ctrl-C in the server's terminal then reaches only the server, which still has streams to finish.
        """
        log.info("starting the engine for local models")
        command = [sys.executable, "-m", "openai_compat.sidecars.huggingface", str(self._runtime_dir.path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 - our own
        if self._process.stdin is not None:
            with suppress(BrokenPipeError), self._process.stdin as stdin:
                stdin.write(self.config.to_json().encode())


def _runtime_path(settings: Settings) -> Path:
    """Return the server's runtime directory, which gunicorn's configuration makes, else one for this process alone."""
    if settings.local_runtime_dir is not None:
        return Path(settings.local_runtime_dir)
    return temporary_parent() / f"{PREFIX}{os.getpid()}-{token_hex(4)}"
