"""Memory that the workers of one server share for their counters, with a slot for each worker.

A slot has a directory of the series in it, which only grows, and their values. The next worker that gets the slot of a
dead one continues with its series and values. No counter goes back, a worker that is killed loses nothing that it has
counted, and the memory is bounded by the workers that live at once.

The master makes the file and gives out the slots. The first slot is its own.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from openai_compat.core.turns import TimeSlices

HEADER_BYTES: Final = 65_536
"""A multiple of every system's page size, as a mapping has to begin at one."""
DIRECTORY_BYTES: Final = 1_048_576
MAX_VALUES: Final = 131_072
"""Values of a slot, which is enough for about 900 models. Unused memory is not allocated."""
VALUES_START: Final = HEADER_BYTES + DIRECTORY_BYTES
SLOT_BYTES: Final = VALUES_START + MAX_VALUES * 8
RESERVED_VALUES: Final = 4096
"""Values that are left for `is_reserved` series, such as those that take what finds no place."""
LAYOUT: Final = 0x6F63_0001
"""Number of this layout, in the first cell of the file. Another one is no file of slots."""
# Cells of the header, of 8 bytes each.
LAYOUT_CELL, OWNER_CELL, DIRECTORY_CELL, FINISHED_CELL = range(4)
STARTS: Final = "openai_compat_worker_starts_total"
EXITS: Final = "openai_compat_worker_exits_total"
"""Names of the series that the master counts in its own slot."""


@dataclass(frozen=True, slots=True)
class Series:
    """A series of a slot. Its values are those from `start` on."""

    family: str
    labels: tuple[str, ...]
    start: int
    size: int


class SlotsFile:
    """The file with all slots, which has no name. `descriptor` is inherited by the workers."""

    def __init__(self) -> None:
        self._file: BinaryIO = _open_unnamed()
        self.descriptor = self._file.fileno()
        self.add()

    def add(self) -> int:
        """Add a slot and return its number."""
        number = slot_count(self.descriptor)
        os.ftruncate(self.descriptor, (number + 1) * SLOT_BYTES)
        os.pwrite(self.descriptor, LAYOUT.to_bytes(8, sys.byteorder), number * SLOT_BYTES)
        return number

    def close(self) -> None:
        """Close the descriptor. The memory is freed once the last process has ended."""
        self._file.close()


def _open_unnamed() -> BinaryIO:
    """Return a file in memory where the system has such files, and elsewhere a deleted one."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("openai-compat-metrics"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def slot_count(descriptor: int) -> int:
    """Return the number of slots in a file."""
    return os.fstat(descriptor).st_size // SLOT_BYTES


class Slot:
    """The slot of this process. `values` may be changed in place, by one thread."""

    def __init__(self, descriptor: int, number: int) -> None:
        self.number = number
        self._memory = mmap.mmap(descriptor, SLOT_BYTES, offset=number * SLOT_BYTES)
        memory = memoryview(self._memory)
        self._header = memory[:HEADER_BYTES].cast("q")
        self.values = memory[VALUES_START:].cast("d")
        self._directory = memory[HEADER_BYTES:VALUES_START]
        series = list(parse_directory(bytes(self._directory[: self._header[DIRECTORY_CELL]])))
        self.series = {(one.family, one.labels, one.size): one.start for one in series}
        self._used = sum(one.size for one in series)

    @property
    def is_owned(self) -> bool:
        """True if a process uses the slot."""
        return self._header[OWNER_CELL] != 0

    def own(self) -> None:
        """Note that this process uses the slot, so that its gauges count."""
        self._header[OWNER_CELL] = os.getpid()

    def finish(self) -> None:
        """Note that this process ends in an orderly way."""
        self._header[FINISHED_CELL] = 1

    def add(self, family: str, labels: Sequence[str], size: int, *, is_reserved: bool = False) -> int | None:
        """Add a series, or find it, and return the index of its first value. Return None if there is no place.

        The series exists once its length is published, so that a reader sees it completely or not at all.
        """
        key = (family, tuple(labels), size)
        if key in self.series:
            return self.series[key]
        line = json.dumps([size, family, *labels]).encode() + b"\n"
        begin = self._header[DIRECTORY_CELL]
        end = begin + len(line)
        reserve = 0 if is_reserved else RESERVED_VALUES
        if self._used + size > MAX_VALUES - reserve or end > DIRECTORY_BYTES - reserve * 8:
            return None
        self._directory[begin:end] = line
        start = self.series[key] = self._used
        self._used += size
        self._header[DIRECTORY_CELL] = end
        return start


def parse_directory(data: bytes, start: int = 0) -> Iterator[Series]:
    """Yield the series of a directory, or of a part of it whose first value has the index `start`."""
    for line in data.splitlines():
        size, family, *labels = json.loads(line)
        yield Series(family, tuple(labels), start, size)
        start += size


class SlotReader:
    """Reader of one slot, by any process. It keeps the series that it has read, as a directory only grows."""

    def __init__(self, descriptor: int, number: int) -> None:
        self.number = number
        self.series: list[Series] = []
        self._descriptor = descriptor
        self._start = number * SLOT_BYTES
        self._read_bytes = self._used = 0

    def read(self, turns: TimeSlices) -> tuple[Sequence[Series], Sequence[float]]:
        """Return all series and their values. New series are read in turns with other greenlets.

        A later call does not change them, so that several readings can take turns.
        """
        length = self._cell(DIRECTORY_CELL)
        if length > self._read_bytes:
            new = os.pread(self._descriptor, length - self._read_bytes, self._start + HEADER_BYTES + self._read_bytes)
            series = []
            for one in parse_directory(new, self._used):
                series.append(one)
                turns.check()
            self._keep(series, length)
        known, used = self.series, self._used
        values = memoryview(os.pread(self._descriptor, used * 8, self._start + VALUES_START)).cast("d").tolist()
        return known, values

    def _keep(self, series: Sequence[Series], length: int) -> None:
        """Keep the series up to `length`, unless another greenlet has done that meanwhile."""
        if length > self._read_bytes:
            known = {one.start for one in self.series}
            self.series = [*self.series, *(one for one in series if one.start not in known)]
            self._read_bytes = length
            self._used = self.series[-1].start + self.series[-1].size

    @property
    def is_owned(self) -> bool:
        """True if a worker that lives uses the slot."""
        return self._cell(OWNER_CELL) != 0

    def _cell(self, cell: int) -> int:
        return int.from_bytes(os.pread(self._descriptor, 8, self._start + cell * 8), sys.byteorder)


class SlotAssignment:
    """The master's part, which gives each worker a slot that no living one has."""

    def __init__(self) -> None:
        self._file = SlotsFile()
        self._own = Slot(self._file.descriptor, 0)
        self._free: list[int] = []
        self._starts = self._count(STARTS)
        self._exits = {is_orderly: self._count(EXITS, "orderly" if is_orderly else "crash") for is_orderly in (0, 1)}

    @property
    def descriptor(self) -> int:
        """The descriptor of the file, which the workers inherit."""
        return self._file.descriptor

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _count(self, family: str, *labels: str) -> int:
        """Return the index of a counter in the master's slot."""
        index = self._own.add(family, labels, 1, is_reserved=True)
        assert index is not None  # noqa: S101 - the slot is new
        return index

    def take(self) -> str:
        """Return the slot of a worker that is about to start, as the text that `open_slot` reads."""
        number = self._free.pop(0) if self._free else self._file.add()
        os.pwrite(self._file.descriptor, bytes(8), number * SLOT_BYTES + FINISHED_CELL * 8)
        self._own.values[self._starts] += 1
        return f"{self._file.descriptor}:{number}"

    def release(self, slot: str) -> None:
        """Take back the slot of a worker that has ended."""
        number = int(slot.partition(":")[2])
        start, descriptor = number * SLOT_BYTES, self._file.descriptor
        is_orderly = os.pread(descriptor, 8, start + FINISHED_CELL * 8) != bytes(8)
        self._own.values[self._exits[is_orderly]] += 1
        os.pwrite(descriptor, bytes(8), start + OWNER_CELL * 8)
        self._free.append(number)
        self._free.sort()


def open_slot(text: str | None) -> tuple[Slot, int, SlotsFile | None]:
    """Return the slot that the master has given to this process, and the descriptor of the file.

    A process without a master, or whose slot another application in it uses, gets a file of its own. It is returned as
    well, to be closed.
    """
    if text is not None:
        descriptor, _, number = text.partition(":")
        if is_slots_file(int(descriptor)):
            slot = Slot(int(descriptor), int(number))
            if not slot.is_owned:
                return slot, int(descriptor), None
    own = SlotsFile()
    return Slot(own.descriptor, 0), own.descriptor, own


def is_slots_file(descriptor: int) -> bool:
    """Return True if the descriptor is that of a file with slots. A process that was started anew has others."""
    try:
        return os.pread(descriptor, 8, LAYOUT_CELL) == LAYOUT.to_bytes(8, sys.byteorder)
    except OSError:
        return False
