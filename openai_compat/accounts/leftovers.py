"""Settlements that a worker leaves in a file, because the ledger is away when the worker stops."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from openai_compat.core.turns import TimeSlices
from openai_compat.state.ledger import Meter, Settlement

ENDING: Final = ".jsonl"
TAKEN_ENDING: Final = ".taken"
NEW_ENDING: Final = ".new"


@dataclass(frozen=True, slots=True)
class PendingSettlement:
    """A call that has ended, and is to be settled when the ledger is back."""

    hold_id: str
    settlements: Sequence[Settlement]
    record: str | None


@dataclass(frozen=True, slots=True)
class Leftover:
    """Settlements of a process that has stopped. `holder` is the name under which the ledger keeps its holds."""

    holder: str
    pending: deque[PendingSettlement]


class LeftoverFiles:
    """Files in one folder, each with what one worker left. Its first line is the holder, each other line is a call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def exist(self) -> bool:
        """Return True if a worker has left some."""
        return bool(self._names())

    def leave(self, holder: str, pending: Iterable[PendingSettlement]) -> None:
        """Write a file, which is complete or does not exist.

        Raises:
            OSError
        """
        dump = TimeSlices().checked(json.dumps)  # there may be thousands
        lines = [dump(holder), *(dump((one.hold_id, one.settlements, one.record)) for one in list(pending))]
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / f"{holder}-{token_hex(4)}"
        descriptor = os.open(path.with_suffix(NEW_ENDING), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write("\n".join(lines))
        path.with_suffix(NEW_ENDING).rename(path.with_suffix(ENDING))

    def take(self) -> Leftover | None:
        """Return the content of one file and delete it, or return None. No other process gets the same content.

        Raises:
            OSError, ValueError: the file cannot be read, and stays under another name.
        """
        for name in self._names():
            taken = (self.folder / name).with_suffix(TAKEN_ENDING)
            try:
                (self.folder / name).rename(taken)
            except FileNotFoundError:  # another worker has taken it
                continue
            leftover = _parse(taken.read_text(encoding="ascii").splitlines())
            taken.unlink()
            return leftover
        return None

    def _names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.folder) if name.endswith(ENDING))  # noqa: PTH208 - each second
        except OSError:
            return []


def _parse(lines: Sequence[str]) -> Leftover:
    load = TimeSlices().checked(json.loads)
    holder, *calls = map(load, lines)
    return Leftover(holder, deque(map(_to_pending, calls)))


def _to_pending(values: Any) -> PendingSettlement:
    hold_id, changes, record = values
    settlements = [Settlement(Meter(*meter), released, added) for meter, released, added in changes]
    return PendingSettlement(hold_id, settlements, record)
