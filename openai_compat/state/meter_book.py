"""The meters of one owner as JSON, and the arithmetic of windows and holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import isinf
from typing import Any, Final

from .ledger import Charge, Level, Meter, Settlement

_encode: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_decode: Final[Callable[[str], Any]] = json.JSONDecoder().decode


class MeterBook:
    """Meters of one owner by name.

    Each is a list of its window, the amount in it, the amount in the window before, and what each process holds.
    """

    __slots__ = ("_meters", "expires_at", "is_new")

    def __init__(self, body: str | None = None, expires_at: float | None = 0.0) -> None:
        """Read `body`, which is None for a new book.

        `expires_at` is the time from which all amounts count as zero, and None for never.
        """
        self.is_new = body is None
        self._meters: dict[str, list[Any]] = {} if body is None else _decode(body)
        self.expires_at = expires_at

    def to_json(self) -> str:
        """Return the body."""
        return _encode(self._meters)

    def level(self, meter: Meter) -> Level:
        """Return the level of a meter in its present window."""
        window, current, previous, holds = self._meters.get(meter.name) or (0, 0, 0, None)
        held = sum(holds.values()) if holds else 0
        if window >= meter.window:
            return Level(current, previous, held)
        return Level(0, current if window == meter.window - 1 else 0, held)

    def charge(self, charge: Charge, level: Level, holder: str, now: float) -> Level:
        """Charge a meter whose level is `level`, and return its new level."""
        meter, amount = charge.meter, charge.amount
        state = self._advance(meter, level)
        if not charge.is_held:
            state[1] += amount
            self._keep(meter, now)
            return Level(level.current + amount, level.previous, level.held)
        holds = state[3] = state[3] or {}
        holds[holder] = holds.get(holder, 0) + amount
        return Level(level.current, level.previous, level.held + amount)

    def settle(self, settlement: Settlement, holder: str, now: float) -> None:
        """Apply a settlement. An amount of the window before the present one counts there, and older ones nowhere."""
        meter, added = settlement.meter, settlement.added
        state = self._advance(meter, self.level(meter))
        if settlement.released and state[3]:
            _release(state[3], holder, settlement.released)
        place = 1 + state[0] - meter.window
        if added and place <= 2:
            state[place] = max(state[place] + added, 0)
            self._keep(meter, now)

    def set_level(self, meter: Meter, current: int, previous: int, now: float) -> None:
        """Set the amounts of the present window and of the one before."""
        state = self._advance(meter, self.level(meter))
        state[1], state[2] = current, previous
        self._keep(meter, now)

    def drop_holder(self, holder: str) -> None:
        """Release what a process holds."""
        for state in self._meters.values():
            (state[3] or {}).pop(holder, None)

    @property
    def has_holds(self) -> bool:
        """True if a process holds an amount."""
        return any(state[3] for state in self._meters.values())

    def _advance(self, meter: Meter, level: Level) -> list[Any]:
        """Return the state of a meter, in its present window or a later one."""
        state = self._meters.get(meter.name)
        if state is None or state[0] < meter.window:
            state = self._meters[meter.name] = [meter.window, level.current, level.previous, state and state[3]]
        return state

    def _keep(self, meter: Meter, now: float) -> None:
        """Keep the book for as long as an amount of the meter counts."""
        if self.expires_at is not None:
            expires_at = now + meter.lifetime
            self.expires_at = None if isinf(expires_at) else max(self.expires_at, expires_at)


def _release(holds: dict[str, int], holder: str, amount: int) -> None:
    left = holds.get(holder, 0) - amount
    if left > 0:
        holds[holder] = left
    else:
        holds.pop(holder, None)
