"""What all workers know of the upstreams: which of them to leave alone for a while, and who may try them again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from time import time
from typing import Final

from openai_compat.core.settings import RoutePolicy
from openai_compat.state.base import StateStore

from .load_balancer import PeakEWMA

log = logging.getLogger(__name__)

REFRESH_INTERVAL: Final = 0.05
"""How old this worker's view may be: a look at the store costs 15 µs (SQLite), which no call should pay."""
STATE_TTL: Final = 600.0
"""How long a cooldown that is over still asks for a probe."""
FAULT_WINDOW: Final = 60.0
"""Faults in a row are counted anew after so long."""
PROBE_TIMEOUT: Final = 30.0
"""For how long a probe keeps others from probing, should its worker die."""
MAX_COOLDOWN: Final = 60.0
"""An upstream that names a longer wait is asked again after this one."""


class Permit(Enum):
    """How a target may be asked."""

    NORMAL = "normal"
    PROBE = "probe"
    """It failed before its cooldown, and this call is the one that finds out whether it is back."""


class CircuitBreaker:
    """Closed, open, half-open: the circuit breaker of each model, one for all who share the store.

    Asking costs a dictionary look-up while all is well. Times are in Unix seconds, as machines may share them.
    """

    def __init__(self, store: StateStore, names: Sequence[str], clock: Callable[[], float] = time) -> None:
        self._store = store
        self._clock = clock
        self._names = tuple(names)
        self._keys = [f"{what}:{name}" for name in names for what in ("cooldown", "faults")]
        self._latencies: dict[str, list[PeakEWMA]] = {}
        self._told: dict[str, float] = {}
        self._seen_at = 0.0
        self._cooling: dict[str, float] = {}
        self._faulty: set[str] = set()

    def share_latencies(self, latencies: Mapping[str, PeakEWMA]) -> None:
        """Keeps `latencies`, by names, in step with those of the other workers."""
        for name, latency in latencies.items():
            self._latencies.setdefault(name, []).append(latency)
            self._keys.append(f"latency:{name}")

    def try_acquire(self, name: str) -> Permit | None:
        """Whether a call may go to `name` now; None while it is left alone."""
        self.refresh()
        until = self._cooling.get(name)
        if until is None:
            return Permit.NORMAL
        if self._clock() < until or not self._store.set_if_absent(f"probe:{name}", PROBE_TIMEOUT):
            return None
        return self._claim_probe(name)

    def _claim_probe(self, name: str) -> Permit | None:
        """The claim is won; but what this worker knows of the cooldown may be older than another's probe."""
        self.refresh(at_once=True)
        until = self._cooling.get(name)
        if until is not None and until <= self._clock():
            log.info("'%s' is tried again after its cooldown", name)
            return Permit.PROBE
        self._store.delete(f"probe:{name}")
        return Permit.NORMAL if until is None else None

    def on_first_byte(self, name: str) -> None:
        """`name` has begun to answer: if it was left alone, that is over for everybody."""
        if name in self._cooling:
            log.warning("'%s' is back", name)
            del self._cooling[name]
            self._store.delete(f"cooldown:{name}")
            self._store.delete(f"probe:{name}")

    def on_success(self, name: str) -> None:
        """An answer of `name` came to its end: faults before it were not in a row with those to come."""
        if name in self._faulty:
            self._faulty.discard(name)
            self._store.delete(f"faults:{name}")

    def failed(
        self, name: str, policy: RoutePolicy, admission: Permit, *, is_outage: bool, named: float | None = None
    ) -> None:
        """A call gave `name` up. `named` is for how long it asked to be left alone."""
        if not policy.cooldown:
            return
        if not (is_outage or admission is Permit.PROBE):
            self._faulty.add(name)
            if self._store.increment(f"faults:{name}", 1, FAULT_WINDOW) < policy.failure_threshold:
                return
        seconds = max(policy.cooldown, min(named or 0.0, MAX_COOLDOWN))
        until = self._clock() + seconds
        if name not in self._cooling:
            log.warning("'%s' is left alone for %g s", name, seconds)
        self._cooling[name] = until
        self._store.write(f"cooldown:{name}", repr(until), seconds + STATE_TTL)
        self._store.delete(f"faults:{name}")
        self.release(name, admission)

    def release(self, name: str, admission: Permit) -> None:
        """A call ended without a verdict on `name`, for example because its client left: another may probe."""
        if admission is Permit.PROBE:
            self._store.delete(f"probe:{name}")

    def refresh(self, *, at_once: bool = False) -> None:
        """Reads what the others have found out, if that is long enough ago."""
        now = self._clock()
        if not at_once and 0 <= now - self._seen_at < REFRESH_INTERVAL:
            return
        self._seen_at = now  # before the look, which may take a moment: one caller looks, the others go on
        self._publish_latencies()
        rows = self._store.read(self._keys)
        self._cooling = {name: float(rows[key]) for name in self._names if (key := f"cooldown:{name}") in rows}
        self._faulty = {name for name in self._names if f"faults:{name}" in rows}
        for name, latencies in self._latencies.items():
            seconds, _, measured_at = rows.get(f"latency:{name}", "").partition("@")
            for latency in latencies if measured_at else ():
                latency.merge(float(seconds), float(measured_at))

    def _publish_latencies(self) -> None:
        for name, latencies in self._latencies.items():
            newest = max(latencies, key=lambda latency: latency.measured_at)
            if newest.measured_at > self._told.get(name, 0.0):
                self._told[name] = newest.measured_at
                self._store.write(f"latency:{name}", f"{newest.seconds!r}@{newest.measured_at!r}", STATE_TTL)
