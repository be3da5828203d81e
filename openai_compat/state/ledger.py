"""Interface of the ledger, which meters what callers use, over all workers that share it.

A meter counts an amount within a window of time, and has a limit. A call charges several meters before it is made, all
of them or none. A charge counts at once, as a request does, or is held until the call ends, as its cost is. The end of
a call settles its charges once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple

from .base import StoreError

HOLDER_SECONDS: Final = 30.0
"""Time after which the holds of a process that sends no more signs of life are released."""


class Meter(NamedTuple):
    """A counter with a limit, in its present window.

    Attributes:
        owner: Whose meter it is, such as a key's id.
        name: Name among the meters of its owner.
        seconds: Length of the window, and inf for one without end.
        window: Number of the present window. It grows with time.
        weight: Share of the window before this one that still counts, from 1 at the start of this one to 0 at its end.
            It is 0 for a window that starts anew, such as a month.
        rest: Seconds to the end of the window.
    """

    owner: str
    name: str
    limit: int
    seconds: float = inf
    window: int = 0
    weight: float = 0.0
    rest: float = inf

    @property
    def lifetime(self) -> float:
        """Seconds for which an amount of the present window counts."""
        return self.rest + (self.seconds if self.weight else 0.0)


def sliding_meter(owner: str, name: str, limit: int, seconds: float, now: float) -> Meter:
    """Return the meter of a sliding window, in which the amount of the previous window counts less and less."""
    window, elapsed = divmod(now, seconds)
    return Meter(owner, name, limit, seconds, int(window), 1 - elapsed / seconds, seconds - elapsed)


class Charge(NamedTuple):
    """An amount to be metered, which counts at once or is held until the call ends."""

    meter: Meter
    amount: int
    is_held: bool = False


class Level(NamedTuple):
    """State of a meter in a window. `previous` is the amount of the window before."""

    current: int = 0
    previous: int = 0
    held: int = 0

    def used(self, meter: Meter) -> int:
        """Return the amount that counts towards the limit."""
        return self.current + self.held + int(self.previous * meter.weight)

    def remaining(self, meter: Meter) -> int:
        """Return the amount that is left."""
        return max(meter.limit - self.used(meter), 0)

    def reset_after(self, meter: Meter) -> float:
        """Return the seconds until the meter is at zero again, if nothing more is charged."""
        if self.current:
            return meter.lifetime
        return meter.rest if self.previous and meter.weight else 0.0

    def retry_after(self, meter: Meter, amount: int) -> float:
        """Return the seconds until `amount` can be charged, 0 if a hold has to end first, and inf for never."""
        if amount > meter.limit:
            return inf
        room = meter.limit - amount - self.held
        if room < 0:
            return 0.0
        if not meter.weight:
            return meter.rest
        if self.current <= room:  # the previous window fades until the rest fits
            return max(meter.rest - (room - self.current) / max(self.previous, 1) * meter.seconds, 0.0)
        return meter.rest + (1 - room / self.current) * meter.seconds


@dataclass(frozen=True, slots=True)
class Refusal:
    """The first charge that exceeds its limit. Nothing was charged."""

    charge: Charge
    level: Level


class Settlement(NamedTuple):
    """Change of one meter at the end of a call.

    `released` is the amount that the call holds. `added` is counted in the window `window`, which may be over.
    """

    meter: Meter
    released: int = 0
    added: int = 0


class ColdLedgerError(StoreError):
    """The ledger is new or lost its contents, so that its meters are to be restored first."""


class Ledger(ABC):
    """Meters, holds, and the records of the calls that have ended, which wait for being stored.

    Each method is atomic among all users of the ledger and raises `StoreError` if it is away. A ledger that is new, or
    lost its contents, is cold. It has no version and charges nothing until `start` was called.
    """

    @property
    @abstractmethod
    def holder(self) -> str:
        """Name of the process, whose holds are kept under it."""

    @abstractmethod
    def for_holder(self, holder: str) -> Ledger:
        """Return the same ledger as the process `holder` uses it, over another connection."""

    @abstractmethod
    def reserve(self, hold_id: str, charges: Sequence[Charge]) -> Sequence[Level] | Refusal:
        """Charge all meters, or none if one of them would exceed its limit. Return their levels afterwards.

        A charge that raised `StoreError` is undone, at the latest by `keep_alive`.

        Raises:
            ColdLedgerError, StoreError
        """

    @abstractmethod
    def settle(self, hold_id: str, settlements: Sequence[Settlement], record: str | None) -> None:
        """Release what the call holds, change the meters, and keep `record`.

        After a `StoreError` it can be called again with the same id, and takes effect once. The amounts are added also
        if the hold was released meanwhile.

        Raises:
            ColdLedgerError, StoreError
        """

    @abstractmethod
    def levels(self, meters: Sequence[Meter]) -> Sequence[Level]:
        """Return the levels of meters in their present windows."""

    @abstractmethod
    def keep_alive(self, now: float) -> None:
        """Give a sign of life, and release the holds of processes that give none any more."""

    @abstractmethod
    def begin_turn(self, now: float, seconds: float) -> bool:
        """Return True if no other process works on the records, and none may for `seconds`."""

    @abstractmethod
    def end_turn(self) -> None:
        """Let other processes work on the records."""

    @abstractmethod
    def records(self, limit: int) -> Sequence[tuple[str, str]]:
        """Return the oldest records with their ids in the ledger."""

    @abstractmethod
    def delete_records(self, ids: Sequence[str]) -> None:
        """Delete the oldest records, once they are stored. `ids` are theirs, as `records` returned them."""

    @abstractmethod
    def drop_records(self, keep: int) -> int:
        """Delete the oldest records beyond `keep`, because they cannot be stored. Return the number of all dropped."""

    @abstractmethod
    def version(self) -> int | None:
        """Return a number that grows with each change of an account, 0 without accounts, and None if it is cold."""

    @abstractmethod
    def bump_version(self) -> None:
        """Tell all users of the ledger that an account has changed. A cold ledger gets its version from `start`."""

    @abstractmethod
    def restore(self, levels: Sequence[tuple[Meter, Level]]) -> None:
        """Set the amounts of meters of a cold ledger. It has no effect on any other."""

    @abstractmethod
    def start(self, version: int) -> None:
        """Give a cold ledger its first version, so that it charges from now on. It has no effect on any other."""

    def tidy(self, now: float) -> None:  # noqa: B027 - not every ledger needs it
        """Delete meters that are at zero. It is called in a native thread."""

    def close(self) -> None:  # noqa: B027 - not every ledger has resources
        """Release the ledger's resources."""
