"""Threaded gunicorn server of a sidecar, with one process that serves and an arbiter that restarts it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from gunicorn.app.base import BaseApplication
from gunicorn.workers.gthread import ThreadWorker

from openai_compat.backends.runtime_dir import RuntimeDir, is_locked, remove_server_folder

log = logging.getLogger(__name__)

POLL_INTERVAL: Final = 0.5


class SidecarServer(BaseApplication):
    """gunicorn application. The arbiter keeps the socket open while it restarts the serving process.

    `create_app` is called in the serving process, so that the arbiter does not import what the models need. The sidecar
    ends after `unused_timeout` seconds without a worker of its configuration, which a reload may change.
    """

    def __init__(
        self,
        create_app: Callable[[], Any],
        runtime_dir: RuntimeDir,
        *,
        threads: int,
        log_level: str,
        unused_timeout: float,
    ) -> None:
        self._create_app = create_app
        self._runtime_dir = runtime_dir
        self._threads = threads
        self._log_level = log_level
        self._unused_timeout = unused_timeout
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, Any] = {
            "bind": f"unix:{self._runtime_dir.socket}",
            "umask": 0o077,  # only this user may open the socket, also if others may enter the directory
            "workers": 1,
            "worker_class": ThreadWorker,
            "threads": self._threads,
            "worker_connections": self._threads + 1000,  # idle keep-alive connections take no thread
            "timeout": 0,  # loading a model may block the process for as long as it takes
            "graceful_timeout": 2,  # the sidecar ends only when no worker is left to read an answer
            "keepalive": 75,  # longer than the workers keep idle connections
            "loglevel": "warning" if self._log_level == "info" else self._log_level,
            "control_socket_disable": True,
            "post_worker_init": self._start_monitor,
            "on_exit": self._clean_up,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return self._create_app()

    def _start_monitor(self, _worker: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        arguments = (self._runtime_dir, os.getppid(), self._unused_timeout)
        threading.Thread(target=stop_when_unused, args=arguments, daemon=True).start()

    def _clean_up(self, _arbiter: object) -> None:
        if not is_locked(self._runtime_dir.server_lock):
            # Removed first, so that of two sidecars that end at the same time one removes the directory.
            self._runtime_dir.sidecar_lock.unlink(missing_ok=True)
            remove_server_folder(str(self._runtime_dir.path))


def stop_when_unused(runtime_dir: RuntimeDir, supervisor: int, timeout: float) -> None:
    """Watch the locks, and end the sidecar when its server has ended or has loaded another configuration."""
    unused_since: float | None = None
    while True:
        time.sleep(POLL_INTERVAL)
        if os.getppid() != supervisor:
            os._exit(1)  # without its supervisor it is not restarted, and a new sidecar needs the memory at once
        if not runtime_dir.path.exists() or not is_locked(runtime_dir.server_lock):
            break
        if is_locked(runtime_dir.users_lock):
            unused_since = None
        elif unused_since is None:
            unused_since = time.monotonic()
        elif time.monotonic() - unused_since > timeout:
            break
    log.info("the sidecar stops because no worker uses it")
    os.kill(supervisor, signal.SIGTERM)
