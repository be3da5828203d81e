"""gunicorn with threads around the engine's application: one process with the models, and its supervisor."""

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
"""For questions about states, and for callers who are told that there is no room."""
POLL_INTERVAL: Final = 0.5
UNUSED_TIMEOUT: Final = 15.0
"""After a reload with another configuration, the old workers' engine goes when nobody has used it for so long."""


class EngineServer(BaseApplication):
    """gunicorn's arbiter holds the socket and restarts the process with the models when it dies."""

    def __init__(self, plan: EngineConfig, folder: RuntimeDir) -> None:
        self._plan = plan
        self._folder = folder
        super().__init__()

    def load_config(self) -> None:
        threads = SPARE_THREADS + sum(self._plan.capacity(model) for model in self._plan.models)
        options: dict[str, Any] = {
            "bind": f"unix:{self._folder.socket}",
            "umask": 0o077,  # the socket is this user's alone, whatever folder it is in
            "workers": 1,
            "worker_class": ThreadWorker,
            "threads": threads,
            "worker_connections": threads + 1000,  # kept-alive connections need no thread
            "timeout": 0,  # loading may keep the process from answering for as long as it takes
            "graceful_timeout": 2,  # it is stopped when nobody is left to read an answer
            "keepalive": 75,  # longer than the workers keep theirs
            "loglevel": "warning" if self._plan.log_level == "info" else self._plan.log_level,
            "control_socket_disable": True,
            "post_worker_init": self._watch,
            "on_exit": self._clean_up,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        from .application import create_engine_app

        return create_engine_app(self._plan)

    def _watch(self, _worker: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=stop_when_unused, args=(self._folder, os.getppid()), daemon=True).start()

    def _clean_up(self, _arbiter: object) -> None:
        if not is_locked(self._folder.server_lock):
            self._folder.engine_lock.unlink(missing_ok=True)  # before others are looked for: they may be ending too
            remove_server_folder(str(self._folder.folder))


def stop_when_unused(folder: RuntimeDir, supervisor: int) -> None:
    """Ends the engine when the server has ended, however it did, or has another configuration by now."""
    unused_since: float | None = None
    while True:
        time.sleep(POLL_INTERVAL)
        if os.getppid() != supervisor:
            os._exit(1)  # a new engine needs the memory at once, and nobody restarts this one
        if not folder.folder.exists() or not is_locked(folder.server_lock):
            break
        if is_locked(folder.users_lock):
            unused_since = None
        elif unused_since is None:
            unused_since = time.monotonic()
        elif time.monotonic() - unused_since > UNUSED_TIMEOUT:
            break
    log.info("the engine stops: nobody uses it")
    os.kill(supervisor, signal.SIGTERM)
