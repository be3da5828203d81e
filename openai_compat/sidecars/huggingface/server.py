"""Threaded gunicorn server of the engine, with one process that holds the models and an arbiter that restarts it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from typing import Any, Final

from gunicorn.app.base import BaseApplication
from gunicorn.workers.gthread import ThreadWorker

from openai_compat.backends.huggingface.engine_config import EngineConfig
from openai_compat.backends.huggingface.runtime_dir import RuntimeDir, is_locked, remove_server_folder

log = logging.getLogger(__name__)

SPARE_THREADS: Final = 32
"""Threads for requests about states, and for calls that are refused because a model's queue is full."""
POLL_INTERVAL: Final = 0.5
UNUSED_TIMEOUT: Final = 15.0
"""Seconds without a worker of this configuration. After a reload with another one, the old engine ends then."""


class EngineServer(BaseApplication):
    """gunicorn application. The arbiter keeps the socket open while it restarts the process with the models."""

    def __init__(self, config: EngineConfig, runtime_dir: RuntimeDir) -> None:
        self._config = config
        self._runtime_dir = runtime_dir
        super().__init__()

    def load_config(self) -> None:
        threads = SPARE_THREADS + sum(self._config.capacity(model) for model in self._config.models)
        options: dict[str, Any] = {
            "bind": f"unix:{self._runtime_dir.socket}",
            "umask": 0o077,  # only this user may open the socket, also if others may enter the directory
            "workers": 1,
            "worker_class": ThreadWorker,
            "threads": threads,
            "worker_connections": threads + 1000,  # idle keep-alive connections take no thread
            "timeout": 0,  # loading a model may block the process for as long as it takes
            "graceful_timeout": 2,  # the engine ends only when no worker is left to read an answer
            "keepalive": 75,  # longer than the workers keep idle connections
            "loglevel": "warning" if self._config.log_level == "info" else self._config.log_level,
            "control_socket_disable": True,
            "post_worker_init": self._start_monitor,
            "on_exit": self._clean_up,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        from .application import create_engine_app

        return create_engine_app(self._config)

    def _start_monitor(self, _worker: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=stop_when_unused, args=(self._runtime_dir, os.getppid()), daemon=True).start()

    def _clean_up(self, _arbiter: object) -> None:
        if not is_locked(self._runtime_dir.server_lock):
            # Removed first, so that of two engines that end at the same time one removes the directory.
            self._runtime_dir.engine_lock.unlink(missing_ok=True)
            remove_server_folder(str(self._runtime_dir.path))


def stop_when_unused(runtime_dir: RuntimeDir, supervisor: int) -> None:
    """Watch the locks, and end the engine when its server has ended or has loaded another configuration."""
    unused_since: float | None = None
    while True:
        time.sleep(POLL_INTERVAL)
        if os.getppid() != supervisor:
            os._exit(1)  # without its supervisor it is not restarted, and a new engine needs the memory at once
        if not runtime_dir.path.exists() or not is_locked(runtime_dir.server_lock):
            break
        if is_locked(runtime_dir.users_lock):
            unused_since = None
        elif unused_since is None:
            unused_since = time.monotonic()
        elif time.monotonic() - unused_since > UNUSED_TIMEOUT:
            break
    log.info("the engine stops because no worker uses it")
    os.kill(supervisor, signal.SIGTERM)
