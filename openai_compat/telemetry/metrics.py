"""Metrics of one application."""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterable
from typing import Final

from openai_compat.core.observation import Activity, Observer, WorkerTotals
from openai_compat.core.turns import TimeSlices
from openai_compat.core.version import __version__
from openai_compat.state.worker_slots import open_slot

from . import families
from .exposition import CONTENT_TYPES, Format, render
from .meters import MeterGauges
from .request_metrics import RequestMetrics
from .sampler import Sampler, Sources
from .series import SeriesTable
from .shared_state import DatabaseProbe, read_shared_state
from .sidecars import read_sidecars
from .totals import Sums, TotalsReader

SLICE_SECONDS: Final = 0.002
"""Time of rendering after which the streams of the worker get a turn."""


class Metrics:
    """Metrics of one application, which are those of all workers if gunicorn's master has given it a slot.

    `observe` is an observer of requests. `activity` is to be kept up to date by the application.
    """

    def __init__(self, slot: str | None, models: Collection[str], sources: Sources) -> None:
        own, descriptor, self._file = open_slot(slot)
        self._sources = sources
        self._table = SeriesTable(own)
        self._requests = RequestMetrics(self._table, models)
        self.observe: Observer = self._requests.observe
        self._database = DatabaseProbe(sources.storage)
        self._meters = MeterGauges(sources.accounts, self._database)
        self._sampler = Sampler(self._table, sources)
        self._totals = TotalsReader(descriptor)

    @property
    def activity(self) -> Activity:
        """Numbers of the requests and streams of this process."""
        return self._sources.activity

    def add_endpoints(self, names: Iterable[str]) -> None:
        """Count requests of these views by their names."""
        self._requests.add_endpoints(names)

    def start(self) -> None:
        """Start to sample this worker each second."""
        self._sampler.start()

    def finish(self) -> None:
        """Write the last numbers, because this process ends in an orderly way."""
        self._sampler.sample()
        self._table.finish()

    def close(self) -> None:
        """Stop the sampling."""
        self._sampler.close()
        if self._file is not None:
            self._file.close()

    def read(self) -> Sums:
        """Return the values of all workers, by the name of the metric and the values of its labels.

        A counter or a gauge has one value. What is shared by all workers, such as circuits, is included.
        """
        self._sampler.sample()
        turns = TimeSlices(SLICE_SECONDS)
        values = self._totals.read(turns)
        values[families.WORKERS.name] = {(): [float(self._totals.count_workers())]}
        values[families.BUILD.name] = {(__version__, platform.python_version()): [1.0]}
        for family, found in read_shared_state(self._sources):
            values[family.name] = found
        if self._sources.storage.is_open:
            values[families.DATABASE_UP.name] = {(): [float(self._database.is_up())]}
        for family, found in {**self._meters.read(turns), **read_sidecars(self._sources.resources)}.items():
            values[family.name] = found
        return values

    def worker_totals(self) -> WorkerTotals:
        """Return numbers of all workers. Those of the others are a second old."""
        self._sampler.sample()
        values = self._totals.read(TimeSlices(SLICE_SECONDS))
        streams, dropped = (
            int(values[family.name].get((), [0.0])[0]) for family in (families.OPEN_STREAMS, families.CALLS_DROPPED)
        )
        return WorkerTotals(streams, dropped)

    def render(self, form: Format) -> tuple[bytes, str]:
        """Return all metrics as text, in turns with the streams of this worker, and its content type."""
        return render(self.read(), form, TimeSlices(SLICE_SECONDS)), CONTENT_TYPES[form]
