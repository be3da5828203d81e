"""Insertion of the objects of several calls into SQLite in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .insertion import NewRows, insert_into_sqlite

BEGIN: Final = "BEGIN IMMEDIATE"
MOST_BYTES: Final = 1_000_000
"""Size of an object from which on it has a transaction of its own."""
FAILURES: Final = (sqlite3.Error, OverflowError, UnicodeError)
"""Errors that one of several objects may cause."""


@dataclass(slots=True, eq=False)
class Insertion:
    """An object that a call waits for."""

    rows: NewRows
    is_done: bool = False


class GroupedInsertion:
    """Insertion in a native thread, where the objects that wait for the thread share a transaction.

    The pages that they have in common are written once.
    """

    def __init__(self) -> None:
        self._waiting: list[Insertion] = []

    def add(self, rows: NewRows) -> Insertion:
        """Let an object wait, until its own call or another one inserts it."""
        insertion = Insertion(rows)
        if rows.size < MOST_BYTES:
            self._waiting.append(insertion)
        return insertion

    def insert(self, connection: sqlite3.Connection, own: Insertion) -> None:
        """Insert an object together with those that wait, unless another call has inserted it already.

        If that fails, each is inserted by its own call. So is an object that is missed here.
        """
        if own.is_done:
            return
        waiting, self._waiting = self._waiting, []
        group = [own, *(one for one in waiting if one is not own and not one.is_done)]
        try:
            _insert(connection, group)
        except FAILURES:
            if len(group) == 1:
                raise
            _insert(connection, [own])


def _insert(connection: sqlite3.Connection, insertions: Sequence[Insertion]) -> None:
    """Insert without SQLAlchemy, whose connection and transaction would cost as much as the insertion."""
    with connection:
        connection.execute(BEGIN)
        for insertion in insertions:
            insert_into_sqlite(connection, insertion.rows)
    for insertion in insertions:
        insertion.is_done = True
