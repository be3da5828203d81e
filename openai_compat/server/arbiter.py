"""Changes to gunicorn's arbiter for validated reloads and for the replacement of draining workers.

A worker may drain for minutes, until its streams are complete. gunicorn would wait for all of them after a reload, and
handle neither signals nor crashed workers meanwhile. It would also not replace a worker that recycles itself before its
last stream is complete.
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
    """Report to the arbiter that this worker drains.

    They share a file. Its modification time is the worker's heartbeat.
    """
    os.write(worker.tmp.fileno(), b"draining")
    worker.tmp.notify()


def is_draining(worker: Worker) -> bool:
    """Return True if the worker has reported that it drains, and thus accepts no connections."""
    try:
        return os.fstat(worker.tmp.fileno()).st_size > 0
    except (OSError, ValueError):  # the worker has exited, and its file is deleted
        return False


class _ReloadDone(Exception):
    """The new workers are running, which ends gunicorn's reload early."""


class SafeReload:
    """Patch of gunicorn's arbiter, installed by `when_ready = SafeReload` in the configuration."""

    def __init__(self, arbiter: Arbiter) -> None:
        self._arbiter = arbiter
        self._reload: Callable[[], None] = arbiter.reload
        self._manage_workers: Callable[[], None] = arbiter.manage_workers
        self._is_reloading = False
        # gunicorn finds its signal handlers by name
        arbiter.handle_hup = self.handle_hup  # type: ignore[method-assign]
        arbiter.manage_workers = self.manage_workers  # type: ignore[method-assign]

    def handle_hup(self) -> None:
        """Reload at SIGHUP, or log an error and keep the old workers if the configuration is invalid.

        gunicorn would replace the old workers by new ones that cannot start, and then exit. The check runs in a process
        of its own, so that no mistake in the models file can end the server.
        """
        command = [sys.executable, "-m", "openai_compat", "check-config"]
        check = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed arguments
        if check.returncode:
            if self._arbiter.log is not None:
                self._arbiter.log.error("not reloaded: %s", check.stderr.strip())
            return
        self._is_reloading = True
        try:
            self._reload()
        except _ReloadDone:
            pass  # gunicorn would wait for the old workers next
        finally:
            self._is_reloading = False

    def manage_workers(self) -> None:
        """Run gunicorn's method, with the draining workers not counted as workers."""
        arbiter = self._arbiter
        configured = arbiter.num_workers
        arbiter.num_workers = configured + sum(is_draining(worker) for worker in arbiter.WORKERS.values())
        try:
            self._manage_workers()
        finally:
            arbiter.num_workers = configured
        if self._is_reloading:
            raise _ReloadDone
