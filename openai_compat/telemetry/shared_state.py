"""State that all workers share, which the worker that is asked reads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

from openai_compat.core.errors import StorageUnavailableError
from openai_compat.state.base import StoreError
from openai_compat.state.ledger import Ledger
from openai_compat.storage import Storage

from . import families
from .exposition import Labels
from .families import Family
from .sampler import Sources

PROBE_SECONDS: Final = 2.0
"""A fifth of the time after which Prometheus gives up a scrape."""
CIRCUITS: Final = {"closed": 0.0, "half-open": 1.0, "open": 2.0}


class DatabaseProbe:
    """Check of the database that waits for at most `PROBE_SECONDS`, so that a scrape shows the outage of a database."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._thread: threading.Thread | None = None
        self._is_up = True

    def is_up(self) -> bool:
        """Return True if the database answers in time. A check that still runs is not started again.

        A database that does not exist is not created.
        """
        if self._storage.is_new:
            return False
        thread = self._thread
        if thread is None or not thread.is_alive():
            thread = self._thread = threading.Thread(target=self._check, daemon=True)
            thread.start()
        thread.join(PROBE_SECONDS)
        return self._is_up and not thread.is_alive()

    def _check(self) -> None:
        try:
            self._storage.check()
        except StorageUnavailableError:
            self._is_up = False
        else:
            self._is_up = True


def read_shared_state(sources: Sources) -> Iterator[tuple[Family, dict[Labels, list[float]]]]:
    """Yield metrics with their values."""
    circuits = sources.breaker.states()
    yield families.CIRCUIT, {(name,): [CIRCUITS[state]] for name, state in circuits.items()}
    sources.store.read(("metrics",))  # a failure makes it unavailable
    yield families.STATE_UP, {(): [float(sources.store.is_available)]}
    if sources.accounts is not None:
        yield families.LEDGER_UP, {(): [float(_is_ledger_up(sources.accounts.ledger))]}


def _is_ledger_up(ledger: Ledger) -> bool:
    try:
        ledger.version()
    except StoreError:
        return False
    return True
