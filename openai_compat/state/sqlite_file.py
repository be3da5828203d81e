"""Transactions on an SQLite file under gevent."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar

from .base import StoreError

T = TypeVar("T")

BUSY_SECONDS: Final = 1.0
"""Time without a transaction of this process after which those that wait give up. One takes about 50 µs."""
BUSY_DELAYS: Final = (0.0005, 0.002)
CHECK_SECONDS: Final = 0.1
"""Time for which a transaction does not look again whether the file is still there, which takes 10 µs."""
MEMORY: Final = ":memory:"


class SQLiteFile:
    """SQLite database in WAL mode, which is opened on first use.

    A transaction runs without a switch to another greenlet. Waits for other workers are sleeps between the attempts,
    because SQLite's own wait would stop the whole worker. One transaction of the process competes with other workers at
    a time, and the others wait for their turn: hundreds that all try again would keep each other from it. The database
    is opened anew if its file was deleted or replaced, as writes to the old one are lost. Every method raises
    `StoreError`.
    """

    def __init__(self, path: str, schema: Sequence[str], on_open: Callable[[], None]) -> None:
        """Use the file at `path`, and call `on_open` for each database that is opened."""
        self._path = path
        self._schema = schema
        self._on_open = on_open
        self._turn = Lock()
        self._lock = Lock()
        self._succeeded_at = 0.0
        self._database: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._check_at = 0.0

    @property
    def is_absent(self) -> bool:
        """True if there is no file yet."""
        return self._database is None and self._path != MEMORY and not Path(self._path).exists()

    def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction and commit."""
        started_at = time.monotonic()
        with self._turn:
            while True:
                with self._lock:
                    try:
                        now = time.monotonic()
                        database = self._database
                        if database is None or now >= self._check_at:
                            database = self._open()
                        if _begin(database):
                            self._succeeded_at = now
                            return _run(database, work)
                    except (sqlite3.Error, OSError) as error:
                        raise StoreError(f"{self._path}: {error}") from error
                if now - max(started_at, self._succeeded_at) >= BUSY_SECONDS:
                    raise StoreError(f"{self._path}: locked for {BUSY_SECONDS:g} s")
                time.sleep(random.uniform(*BUSY_DELAYS))  # noqa: S311 - not for cryptography

    def read(self, statement: str, *values: Any) -> list[Any]:
        """Return the rows of a query, which does not wait for writers."""
        try:
            with self._lock:
                return self._open().execute(statement, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path}: {error}") from error

    def close(self) -> None:
        """Close the database. The next call opens it again."""
        with self._lock:
            self._drop()

    def _open(self) -> sqlite3.Connection:
        if self._database is not None and self._inode != self._identify():
            self._drop()
        if self._database is None:
            self._database = _connect(self._path, self._schema)
            self._inode = self._identify()
            self._on_open()
        self._check_at = time.monotonic() + CHECK_SECONDS
        return self._database

    def _drop(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _identify(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - twice as fast as by `Path`, and done often
        except OSError:
            return None
        return status.st_dev, status.st_ino


def _connect(path: str, schema: Sequence[str]) -> sqlite3.Connection:
    if path != MEMORY:
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        Path(path).touch(mode=0o600)
    database = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA page_size = 2048")  # a call writes whole pages, and a row fits into one
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        for statement in schema:
            database.execute(statement)
        database.execute("PRAGMA busy_timeout = 0")
    except sqlite3.Error:
        database.close()
        raise
    return database


def _begin(database: sqlite3.Connection) -> bool:
    """Start a transaction and return True, or return False if another process writes."""
    try:
        database.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname.startswith("SQLITE_BUSY"):
            return False
        raise
    return True


def _run(database: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    try:
        result = work(database)
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    return result
