"""State that all workers share, which the worker that is asked reads."""

from __future__ import annotations

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

CIRCUITS: Final = {"closed": 0.0, "half-open": 1.0, "open": 2.0}


def read_shared_state(sources: Sources) -> Iterator[tuple[Family, dict[Labels, list[float]]]]:
    """Yield metrics with their values."""
    circuits = sources.breaker.states()
    yield families.CIRCUIT, {(name,): [CIRCUITS[state]] for name, state in circuits.items()}
    sources.store.read(("metrics",))  # a failure makes it unavailable
    yield families.STATE_UP, {(): [float(sources.store.is_available)]}
    if sources.accounts is not None:
        yield families.LEDGER_UP, {(): [float(_is_ledger_up(sources.accounts.ledger))]}
    if sources.storage.is_open:
        yield families.DATABASE_UP, {(): [float(_is_database_up(sources.storage))]}


def _is_ledger_up(ledger: Ledger) -> bool:
    try:
        ledger.version()
    except StoreError:
        return False
    return True


def _is_database_up(storage: Storage) -> bool:
    try:
        storage.check()
    except StorageUnavailableError:
        return False
    return True
