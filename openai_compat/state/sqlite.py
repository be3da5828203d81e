"""State store in an SQLite file, which the workers of one machine share."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from time import time
from typing import Any, Final

from .base import StateStore, StoreError

BUSY_TIMEOUT: Final = 0.05
"""Seconds to wait for another worker's call, which takes 10 µs. Calls to SQLite block all greenlets of a worker."""
WRITES_PER_SWEEP: Final = 1000
"""Number of writes after which expired entries are deleted."""

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID"
)
_WRITE = (
    "INSERT INTO state VALUES (:key, :value, :until) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value, until = excluded.until"
)
_INCREMENT = (
    "INSERT INTO state VALUES (:key, :amount, :until) ON CONFLICT (key) DO UPDATE SET "
    "value = CASE WHEN until > :now THEN value + :amount ELSE excluded.value END, "
    "until = CASE WHEN until > :now THEN until ELSE excluded.until END RETURNING value"
)
_SET_IF_ABSENT = (
    "INSERT INTO state VALUES (:key, '1', :until) ON CONFLICT (key) DO UPDATE SET "
    "value = excluded.value, until = excluded.until WHERE state.until <= :now RETURNING 1"
)


class SQLiteStore(StateStore):
    """Store in an SQLite database in WAL mode, in which readers and a writer do not block each other.

    Writes are not flushed to disk, because the values are worth a few seconds, which a crash of the machine outlasts.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time) -> None:
        self._path = Path(path)
        self._clock = clock
        self._lock = Lock()
        self._database: sqlite3.Connection | None = None
        self._writes = 0

    def read(self, keys: Sequence[str]) -> Mapping[str, str]:
        marks = ",".join("?" * len(keys))
        query = f"SELECT key, value FROM state WHERE until > ? AND key IN ({marks})"  # noqa: S608 - only question marks
        return dict(self._execute(query, (self._clock(), *keys)))

    def write(self, key: str, value: str, seconds: float) -> None:
        self._write(_WRITE, key, seconds, value=value)

    def delete(self, key: str) -> None:
        self._execute("DELETE FROM state WHERE key = ?", (key,))

    def increment(self, key: str, amount: int, seconds: float) -> int:
        return int(self._write(_INCREMENT, key, seconds, amount=amount)[0][0])

    def set_if_absent(self, key: str, seconds: float) -> bool:
        return bool(self._write(_SET_IF_ABSENT, key, seconds))

    def close(self) -> None:
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _write(self, statement: str, key: str, seconds: float, **values: Any) -> list[Any]:
        now = self._clock()
        rows = self._execute(statement, {"key": key, "now": now, "until": now + seconds, **values})
        self._writes += 1
        if self._writes % WRITES_PER_SWEEP == 0:
            self._execute("DELETE FROM state WHERE until <= ?", (now,))
        return rows

    def _execute(self, statement: str, values: Any) -> list[Any]:
        with self._lock:
            try:
                if self._database is None:
                    self._database = self._open()
                return self._database.execute(statement, values).fetchall()
            except (sqlite3.Error, OSError) as error:
                raise StoreError(f"{self._path}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_private()
        database = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = OFF")
            database.execute(_SCHEMA)
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _make_private(self) -> None:
        """Create the file for this user only. SQLite gives the same permissions to the files beside it."""
        self._path.touch(mode=0o600)
        if self._path.stat().st_mode & 0o077:  # it was made by an earlier version
            with suppress(PermissionError):  # it belongs to another user
                self._path.chmod(0o600)
