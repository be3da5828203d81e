"""Gauges and counters of a worker that are sampled, because their changes are not reported."""

from __future__ import annotations

import logging
import resource
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openai_compat.accounts.service import Accounts
from openai_compat.backends.resources import BackendResources
from openai_compat.core.concurrency import ConcurrencyLimiter
from openai_compat.core.observation import Activity
from openai_compat.routing.circuit_breaker import CircuitBreaker
from openai_compat.services.call_log.recorder import CallRecorder
from openai_compat.state.base import StateStore
from openai_compat.storage import Storage

from . import families
from .families import Family
from .series import SeriesTable

log = logging.getLogger(__name__)

SAMPLE_SECONDS: Final = 1.0
LAG_TIMERS: Final = 4
"""Timers between two samples, each of which may be late."""
_STATM: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = resource.getpagesize()


@dataclass(frozen=True, slots=True)
class Sources:
    """The components of an application that metrics are read from."""

    activity: Activity
    limiter: ConcurrencyLimiter
    resources: BackendResources
    breaker: CircuitBreaker
    store: StateStore
    storage: Storage
    accounts: Accounts | None
    recorder: CallRecorder | None


class Sampler:
    """Sampler of one worker. `start` lets it take a sample each second."""

    def __init__(self, table: SeriesTable, sources: Sources) -> None:
        self._table = table
        self._sources = sources
        self._last: dict[tuple[str, ...], float] = {}
        self._is_closed = threading.Event()
        self._is_running = False

    def start(self) -> None:
        """Take a sample each second, in a thread (under gevent, a greenlet)."""
        if not self._is_running:
            self._is_running = True
            threading.Thread(target=self._run, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._is_closed.set()

    def _run(self) -> None:
        while True:
            lag = max(self._wait_late(SAMPLE_SECONDS / LAG_TIMERS) for _ in range(LAG_TIMERS))
            if self._is_closed.is_set():
                return
            try:
                self._table.set(lag, families.LAG, self._table.worker)
                self.sample()
            except Exception:  # one failure must not end the samples
                log.exception("metrics could not be sampled")

    def _wait_late(self, seconds: float) -> float:
        """Wait, and return by how many seconds that took too long."""
        started_at = time.monotonic()
        self._is_closed.wait(seconds)
        return max(time.monotonic() - started_at - seconds, 0.0)

    def sample(self) -> None:
        """Write the present numbers."""
        table, sources = self._table, self._sources
        table.set(sources.activity.requests, families.IN_FLIGHT)
        table.set(sources.activity.streams, families.OPEN_STREAMS)
        table.set(sources.limiter.queued, families.QUEUED, "server")
        table.set(sum(limiter.queued for limiter in sources.resources.limiters), families.QUEUED, "upstream")
        connections = sources.resources.http_client.connection_counts()
        table.set(connections.idle, families.IDLE_CONNECTIONS)
        self._count(connections.opened, families.CONNECTIONS, "new")
        self._count(connections.reused, families.CONNECTIONS, "reused")
        if sources.accounts is not None:
            self._count(sources.accounts.bookkeeper.dropped, families.ROWS_DROPPED)
        if sources.recorder is not None:
            self._count(sources.recorder.dropped, families.CALLS_DROPPED)
        table.set(read_memory(), families.MEMORY, table.worker)
        self._count(time.process_time(), families.CPU)

    def _count(self, present: float, family: Family, *labels: str) -> None:
        """Add to a counter what this process has counted since the last sample."""
        key = (family.name, *labels)
        self._table.add(present - self._last.get(key, 0.0), family, *labels)
        self._last[key] = present


def read_memory() -> int:
    """Return the resident memory of this process in bytes, and its maximum where the system does not tell more."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
