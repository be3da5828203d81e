"""The engine process as a server's worker sees it: where it listens, and how it is started when it does not."""

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
"""An interpreter on a busy machine takes a second or two; whoever waits for longer is better told."""
POLL_INTERVAL: Final = 0.05


class EngineClient:
    """One for all local models of an application. It costs nothing until a local model is used."""

    def __init__(self, settings: Settings) -> None:
        self.plan: EngineConfig = to_engine_config(settings)
        self._folder = RuntimeDir(_folder_of(settings), self.plan.identity)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._held: list[int] = []

    @property
    def url(self) -> str:
        """The root of its API."""
        return self._folder.url

    @property
    def socket_exists(self) -> bool:
        """Whether there is a socket; whoever made it may be gone."""
        return self._folder.socket.exists()

    @property
    def blocker(self) -> str | None:
        """Why it cannot be started, in a sentence; None where nothing is known to be in the way."""
        missing = missing_library(self.plan.loader)
        if missing is None:
            return None
        return f"Local models need '{missing}', which is not installed. It comes with {install_hint('local')}"

    def start(self, cancellation: CancellationToken) -> None:
        """Returns when the engine listens, whoever started it. Exactly one runs: all others find its lock taken.

        Raises:
            ModelUnavailableError: what it needs is not installed, or the folder cannot be used.
            ModelBusyError: it ended at once, or does not listen in time.
            CallCancelledError
        """
        self._check()
        deadline = time.monotonic() + START_TIMEOUT
        self._forget_exited()
        while not self._is_listening():
            self._spawn_unless_running()
            if time.monotonic() > deadline:
                raise ModelBusyError("The engine for local models is still starting. Please try again later.")
            cancellation.wait(POLL_INTERVAL)

    def preload(self) -> None:
        """Starts it in the background, where the settings ask for models before anyone does."""
        if self.plan.preload:
            threading.Thread(target=self._start_early, name="start-engine", daemon=True).start()

    def close(self) -> None:
        """The engine stops when the last process of the server has given up its locks."""
        while self._held:
            os.close(self._held.pop())

    def _start_early(self) -> None:
        try:
            self.start(CancellationToken())
        except (ModelUnavailableError, ModelBusyError) as error:
            log.error("PRELOAD_MODELS: %s", error.message)

    def _check(self) -> None:
        if (blocker := self.blocker) is not None:
            raise ModelUnavailableError(blocker)

    def _is_listening(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.connect(str(self._folder.socket))
            return True
        return False

    def _forget_exited(self) -> None:
        """Forgets the engine of an earlier start, where it has ended."""
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._process = None

    def _spawn_unless_running(self) -> None:
        with self._lock:
            ended = None if self._process is None else self._process.poll()
            if self._process is not None and ended is None:
                return
            if ended:
                raise ModelBusyError("The engine for local models does not start; the server's log has the cause.")
            self._join()  # none was started, or another worker's was quicker
            self._spawn()

    def _join(self) -> None:
        """Makes the folder, and tells the engine by locks that somebody is here."""
        try:
            self._folder.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._held:
                self._held = [lock_shared(self._folder.server_lock), lock_shared(self._folder.users_lock)]
        except OSError as error:
            log.error("the folder of the engine cannot be used: %s", error)
            raise ModelUnavailableError("The engine for local models has no folder to meet in.") from error

    def _spawn(self) -> None:
        """In a session of its own: Ctrl-C in the server's terminal is for the server, which has streams to finish."""
        log.info("starting the engine for local models")
        command = [sys.executable, "-m", "openai_compat.sidecars.huggingface", str(self._folder.folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 - our own
        if self._process.stdin is not None:
            with suppress(BrokenPipeError), self._process.stdin as stdin:
                stdin.write(self.plan.to_json().encode())


def _folder_of(settings: Settings) -> Path:
    """The server's, which gunicorn's configuration makes; else one for this process alone."""
    if settings.local_runtime_dir is not None:
        return Path(settings.local_runtime_dir)
    return temporary_parent() / f"{PREFIX}{os.getpid()}-{token_hex(4)}"
