"""Circuit breakers for upstreams, shared by all workers through the state store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from time import time
from typing import Final, Literal

from openai_compat.core.settings import RoutePolicy
from openai_compat.state.base import StateStore

from .load_balancer import PeakEWMA

log = logging.getLogger(__name__)

REFRESH_INTERVAL: Final = 0.05
"""Maximum age in seconds of this worker's copy of the store. A read takes 15 µs (SQLite), too long for every call."""
STATE_TTL: Final = 600.0
"""Seconds after the end of a cooldown during which the next call is still a probe."""
FAULT_WINDOW: Final = 60.0
"""Seconds after which the count of consecutive faults starts again at zero."""
PROBE_TIMEOUT: Final = 30.0
"""Seconds until another worker may probe, in case the worker that probes dies."""
MAX_COOLDOWN: Final = 60.0
"""Maximum cooldown in seconds that an upstream can request with `Retry-After`."""


class Permit(Enum):
    """Permission to call a target."""

    NORMAL = "normal"
    """The circuit is closed."""
    PROBE = "probe"
    """The circuit is half-open. The outcome of this call decides whether it closes or opens again."""


CircuitState = Literal["closed", "half-open", "open"]


def _state_of(open_until: float | None, now: float) -> CircuitState:
    if open_until is None:
        return "closed"
    return "open" if now < open_until else "half-open"


class CircuitBreaker:
    """Circuit breakers of all targets of routes, one for each model name.

    The state (closed, open, half-open) is shared by all workers that use the same store. While a circuit is closed,
    `try_acquire` costs one dictionary lookup. Times are Unix seconds because the workers may run on several machines.
    """

    def __init__(self, store: StateStore, names: Sequence[str], clock: Callable[[], float] = time) -> None:
        self._store = store
        self._clock = clock
        self._names = tuple(names)
        self._keys = [f"{prefix}:{name}" for name in names for prefix in ("cooldown", "faults")]
        self._latencies: dict[str, list[PeakEWMA]] = {}
        self._published_at: dict[str, float] = {}
        self._refreshed_at = 0.0
        self._open_until: dict[str, float] = {}
        self._faulty: set[str] = set()

    def share_latencies(self, latencies: Mapping[str, PeakEWMA]) -> None:
        """Synchronize `latencies`, by model name, with those of the other workers."""
        for name, latency in latencies.items():
            self._latencies.setdefault(name, []).append(latency)
            self._keys.append(f"latency:{name}")

    def try_acquire(self, name: str) -> Permit | None:
        """Return the permit to call `name`, or None while its circuit is open."""
        self.refresh()
        until = self._open_until.get(name)
        if until is None:
            return Permit.NORMAL
        if self._clock() < until or not self._store.set_if_absent(f"probe:{name}", PROBE_TIMEOUT):
            return None
        return self._claim_probe(name)

    def _claim_probe(self, name: str) -> Permit | None:
        """Return the permit of the worker that won the claim to probe `name`.

        This worker's copy of the state may be older than the result of another worker's probe, so it is read again.
        """
        self.refresh(force=True)
        until = self._open_until.get(name)
        if until is not None and until <= self._clock():
            log.info("circuit of '%s' is half-open, this call probes it", name)
            return Permit.PROBE
        self._store.delete(f"probe:{name}")
        return Permit.NORMAL if until is None else None

    def open_until(self, name: str) -> float | None:
        """Return the time at which the circuit of `name` becomes half-open, or None if it is closed.

        Callers keep it from the start of their call, so that the breaker can tell whether the circuit has been opened
        since. The result of a call that is older than that says nothing new about the upstream.
        """
        return self._open_until.get(name)

    def states(self) -> Mapping[str, CircuitState]:
        """Return the state of each circuit, as all workers share it."""
        self.refresh()
        now = self._clock()
        return {name: _state_of(self._open_until.get(name), now) for name in self._names}

    def describe(self, name: str) -> tuple[CircuitState, float | None]:
        """Return the state of the circuit of `name`, and the Unix time until which it is open."""
        self.refresh()
        until = self._open_until.get(name)
        state = _state_of(until, self._clock())
        return state, until if state == "open" else None

    def was_opened(self, name: str, since: float | None) -> bool:
        """Return True if the circuit of `name` is open, and `open_until` was another time at the start of the call."""
        self.refresh()
        until = self._open_until.get(name)
        return until is not None and until != since and self._clock() < until

    def pause(self, name: str, policy: RoutePolicy, seconds: float) -> float | None:
        """Open the circuit of `name` for the time that the upstream requested. Return its `open_until`.

        The call that reports the pause may retry after it. All other calls go to other targets meanwhile.
        """
        if not policy.cooldown or not seconds:
            return self._open_until.get(name)
        seconds = min(seconds, MAX_COOLDOWN)
        log.warning("circuit of '%s' opened for %g s, as the upstream requested", name, seconds)
        return self._open(name, seconds)

    def on_first_byte(self, name: str, since: float | None) -> None:
        """Close the circuit of `name`, for all workers, because a response has started.

        A circuit that was opened after the start of the call stays open. `since` is `open_until` at that time.
        """
        until = self._open_until.get(name)
        if until is not None and until == since:
            log.warning("circuit of '%s' closed", name)
            del self._open_until[name]
            self._store.delete(f"cooldown:{name}")
            self._store.delete(f"probe:{name}")

    def on_success(self, name: str) -> None:
        """Reset the count of consecutive faults of `name` because a response is complete."""
        if name in self._faulty:
            self._faulty.discard(name)
            self._store.delete(f"faults:{name}")

    def on_failure(
        self,
        name: str,
        policy: RoutePolicy,
        permit: Permit,
        *,
        is_outage: bool,
        since: float | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Count a failed call to `name`, and open its circuit after an outage, a failed probe or too many faults.

        The circuit stays open for the policy's cooldown or for `retry_after` seconds, if that is longer. `since` is
        `open_until` at the start of the call. A circuit that was opened after that is not kept open longer.
        """
        if not policy.cooldown:
            return
        if self.was_opened(name, since):
            self.release(name, permit)
            return
        if not (is_outage or permit is Permit.PROBE):
            self._faulty.add(name)
            if self._store.increment(f"faults:{name}", 1, FAULT_WINDOW) < policy.failure_threshold:
                return
        seconds = max(policy.cooldown, min(retry_after or 0.0, MAX_COOLDOWN))
        if name not in self._open_until:
            log.warning("circuit of '%s' opened for %g s", name, seconds)
        self._open(name, seconds)
        self._store.delete(f"faults:{name}")
        self.release(name, permit)

    def _open(self, name: str, seconds: float) -> float:
        """Open the circuit of `name` for all workers, and return its `open_until`."""
        until = self._open_until[name] = self._clock() + seconds
        self._store.write(f"cooldown:{name}", repr(until), seconds + STATE_TTL)
        return until

    def release(self, name: str, permit: Permit) -> None:
        """Return a permit after a call without a result for `name`, for example after a client disconnect."""
        if permit is Permit.PROBE:
            self._store.delete(f"probe:{name}")

    def refresh(self, *, force: bool = False) -> None:
        """Read the state from the store, unless that was done within `REFRESH_INTERVAL` and `force` is not set."""
        now = self._clock()
        if not force and 0 <= now - self._refreshed_at < REFRESH_INTERVAL:
            return
        self._refreshed_at = now  # set before the read, which may block: other calls continue with the old state
        self._publish_latencies()
        values = self._store.read(self._keys)
        self._open_until = {name: float(values[key]) for name in self._names if (key := f"cooldown:{name}") in values}
        self._faulty = {name for name in self._names if f"faults:{name}" in values}
        for name, latencies in self._latencies.items():
            seconds, _, measured_at = values.get(f"latency:{name}", "").partition("@")
            for latency in latencies if measured_at else ():
                latency.merge(float(seconds), float(measured_at))

    def _publish_latencies(self) -> None:
        for name, latencies in self._latencies.items():
            newest = max(latencies, key=lambda latency: latency.measured_at)
            if newest.measured_at > self._published_at.get(name, 0.0):
                self._published_at[name] = newest.measured_at
                self._store.write(f"latency:{name}", f"{newest.seconds!r}@{newest.measured_at!r}", STATE_TTL)
