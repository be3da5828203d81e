"""Sums of the values of all workers."""

from __future__ import annotations

from operator import add

from openai_compat.core.turns import TimeSlices
from openai_compat.state.worker_slots import SlotReader, slot_count

from .exposition import Labels
from .families import FAMILIES, Family

SIZES = {family.name: (family, family.size) for family in FAMILIES}

Sums = dict[str, dict[Labels, list[float]]]
"""Values by the name of a metric and by the values of its labels."""


class TotalsReader:
    """Reader of the slots of all workers. It remembers their series between two calls."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._readers: list[SlotReader] = []

    def read(self, turns: TimeSlices) -> Sums:
        """Return the sums. Those of gauges are of the workers that live, and all others of those that ever lived."""
        numbers = range(len(self._readers), slot_count(self._descriptor))
        self._readers += (SlotReader(self._descriptor, number) for number in numbers)
        sums: Sums = {family.name: {} for family in FAMILIES}
        for reader in self._readers:
            self._add(reader, sums, turns)
        return sums

    def count_workers(self) -> int:
        """Return the number of workers that live, as `read` found them."""
        return sum(reader.is_owned for reader in self._readers)

    @staticmethod
    def _add(reader: SlotReader, sums: Sums, turns: TimeSlices) -> None:
        is_owned = reader.is_owned
        found, values = reader.read(turns)
        for series in found:
            turns.check()
            family, size = SIZES.get(series.family, (None, 0))
            if family is None or not _fits(family, series.labels, size, series.size):
                continue
            if family.kind == "gauge" and not is_owned:
                continue
            own = list(values[series.start : series.start + size])
            known = sums[series.family].get(series.labels)
            sums[series.family][series.labels] = own if known is None else list(map(add, known, own))


def _fits(family: Family, labels: Labels, size: int, found: int) -> bool:
    """Return False for a series of another version of this server, whose metric had other labels or buckets."""
    return found == size and len(labels) == len(family.labels)
