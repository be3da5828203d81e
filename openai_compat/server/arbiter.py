"""What this server changes about gunicorn's master: careful reloads, and a new worker for each that is ending.

A worker that ends may take minutes, as its streams finish. gunicorn would wait for all of them after a reload, deaf to
signals and to workers that die, and it would not replace one that recycles itself until its last stream is over.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter
    from gunicorn.workers.base import Worker


def mark_draining(worker: Worker) -> None:
    """Tells the master, from within the worker. They share one file, whose time is the worker's heartbeat."""
    os.write(worker.tmp.fileno(), b"ending")
    worker.tmp.notify()


def is_draining(worker: Worker) -> bool:
    """Whether the worker has said so: it takes no connections any more."""
    try:
        return os.fstat(worker.tmp.fileno()).st_size > 0
    except (OSError, ValueError):  # it is gone already, and its file with it
        return False


class _ReloadDone(Exception):
    """The part of a reload that is wanted is done."""


class SafeReload:
    """Puts its own methods into gunicorn's master: `when_ready = CarefulMaster` in the configuration."""

    def __init__(self, arbiter: Arbiter) -> None:
        self._arbiter = arbiter
        self._reload: Callable[[], None] = arbiter.reload
        self._manage_workers: Callable[[], None] = arbiter.manage_workers
        self._is_reloading = False
        # gunicorn looks its handlers up by their names
        arbiter.handle_hup = self.handle_hup  # type: ignore[method-assign]
        arbiter.manage_workers = self.manage_workers  # type: ignore[method-assign]

    def handle_hup(self) -> None:
        """Makes a SIGHUP with a configuration that is wrong a line in the log: the old workers go on serving.

        gunicorn itself would replace them by workers that cannot start, and then give up. Checked in a process of its
        own: a wrong line in the models file must not end a running server.
        """
        command = [sys.executable, "-m", "openai_compat", "check-config"]
        check = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no word is foreign
        if check.returncode:
            if self._arbiter.log is not None:
                self._arbiter.log.error("not reloaded: %s", check.stderr.strip())
            return
        self._is_reloading = True
        try:
            self._reload()
        except _ReloadDone:
            pass  # what gunicorn would do next is wait for the old ones
        finally:
            self._is_reloading = False

    def manage_workers(self) -> None:
        """gunicorn's own, for as many workers as are wanted beside those that are ending."""
        arbiter = self._arbiter
        wanted = arbiter.num_workers
        arbiter.num_workers = wanted + sum(is_draining(worker) for worker in arbiter.WORKERS.values())
        try:
            self._manage_workers()
        finally:
            arbiter.num_workers = wanted
        if self._is_reloading:
            raise _ReloadDone
