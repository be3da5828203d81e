"""Series in the slot of this process, created when they are first counted."""

from __future__ import annotations

from typing import Final

from openai_compat.state.worker_slots import Slot

from .families import FAMILIES, Family

OTHER: Final = "other"
"""Value of all labels of the series that takes what finds no place, and of a label whose value is not a known one."""


class SeriesTable:
    """The series of one slot. `values` is changed in place, at the indexes that `index` returns."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self.values = slot.values
        self._reset_gauges()
        slot.own()

    def _reset_gauges(self) -> None:
        """Set the gauges of the worker that had the slot before to zero."""
        gauges = {family.name for family in FAMILIES if family.kind == "gauge"}
        for (name, _, _), index in self._slot.series.items():
            if name in gauges:
                self.values[index] = 0.0

    @property
    def worker(self) -> str:
        """Number of the slot, as the value of the label `worker`."""
        return str(self._slot.number)

    def index(self, family: Family, *labels: str) -> int:
        """Return the index of the first value of a series.

        In a full slot that is a series of the same metric whose labels are all `other`.
        """
        index = self._slot.add(family.name, labels, family.size)
        if index is None:
            index = self._slot.add(family.name, (OTHER,) * len(labels), family.size, is_reserved=True)
        assert index is not None  # noqa: S101 - the reserve has a place for each family
        return index

    def add(self, amount: float, family: Family, *labels: str) -> None:
        """Add to a counter."""
        self.values[self.index(family, *labels)] += amount

    def set(self, value: float, family: Family, *labels: str) -> None:
        """Set a gauge."""
        self.values[self.index(family, *labels)] = value

    def finish(self) -> None:
        """Note that this process ends in an orderly way."""
        self._slot.finish()
