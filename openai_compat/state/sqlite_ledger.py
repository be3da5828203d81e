"""Ledger in an SQLite file, which the workers of one machine share."""

from __future__ import annotations

import math
import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar

from .base import StoreError
from .ledger import HOLDER_SECONDS, Charge, Ledger, Level, Meter, Refusal, Settlement
from .meter_book import MeterBook

T = TypeVar("T")

BUSY_SECONDS: Final = 1.0
"""Time to wait for other workers, whose transactions take about 20 µs."""
BUSY_DELAYS: Final = (0.0005, 0.002)
MEMORY: Final = ":memory:"
EMPTY: Final = MeterBook()

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS books (owner TEXT PRIMARY KEY, body TEXT NOT NULL, expires_at REAL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS holders (name TEXT PRIMARY KEY, expires_at REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS turn (id INTEGER PRIMARY KEY, until REAL NOT NULL)",
    "CREATE TABLE IF NOT EXISTS numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
)
_READ: Final = "SELECT body, expires_at FROM books WHERE owner = ?"
_WRITE: Final = "REPLACE INTO books VALUES (?, ?, ?)"
_ADD: Final = (
    "INSERT INTO numbers VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value RETURNING value"
)


class SQLiteLedger(Ledger):
    """Ledger in an SQLite database in WAL mode. What was committed survives the death of any process.

    A transaction runs without a switch to another greenlet. Waits for other workers are sleeps between the attempts,
    because SQLite's own wait would stop the whole worker. The log is written back by `tidy`, in a native thread.
    """

    def __init__(self, path: str, holder: str, clock: Callable[[], float] = time.time) -> None:
        """Use the file at `path` for the process `holder`."""
        self._path = path
        self._holder = holder
        self._clock = clock
        self._lock = Lock()
        self._database: sqlite3.Connection | None = None

    def reserve(self, hold_id: str, charges: Sequence[Charge]) -> Sequence[Level] | Refusal:
        now = self._clock()

        def work(database: sqlite3.Connection) -> Sequence[Level] | Refusal:
            books = _read_books(database, [charge.meter for charge in charges])
            levels = []
            for charge in charges:
                meter = charge.meter
                book = books[meter.owner]
                level = book.level(meter)
                if level.used(meter) + charge.amount > meter.limit:
                    return Refusal(charge, level)
                levels.append(book.charge(charge, level, self._holder, now))
            _write_books(database, books)
            return levels

        return self._transact(work)

    def settle(self, hold_id: str, settlements: Sequence[Settlement], record: str | None) -> None:
        now = self._clock()

        def work(database: sqlite3.Connection) -> None:
            books = _read_books(database, [settlement.meter for settlement in settlements])
            for settlement in settlements:
                books[settlement.meter.owner].settle(settlement, self._holder, now)
            _write_books(database, books)
            if record is not None:
                database.execute("INSERT INTO records (body) VALUES (?)", (record,))

        self._transact(work)

    def levels(self, meters: Sequence[Meter]) -> Sequence[Level]:
        owners = {meter.owner for meter in meters}
        books = {owner: MeterBook(*row) for owner in owners for row in self._read(_READ, owner)}
        return [books.get(meter.owner, EMPTY).level(meter) for meter in meters]

    def set_level(self, meter: Meter, current: int) -> None:
        def work(database: sqlite3.Connection) -> None:
            books = _read_books(database, [meter])
            books[meter.owner].set_level(meter, current, self._clock())
            _write_books(database, books)

        self._transact(work)

    def keep_alive(self, now: float) -> None:
        def work(database: sqlite3.Connection) -> None:
            database.execute("REPLACE INTO holders VALUES (?, ?)", (self._holder, now + HOLDER_SECONDS))
            if database.execute("DELETE FROM holders WHERE expires_at <= ?", (now,)).rowcount:
                _release_dead_holds(database)

        self._transact(work)

    def begin_turn(self, now: float, seconds: float) -> bool:
        return self._transact(lambda database: _take_turn(database, now, now + seconds))

    def end_turn(self) -> None:
        self._transact(lambda database: _take_turn(database, math.inf, 0))

    def records(self, limit: int) -> Sequence[tuple[str, str]]:
        rows = self._read("SELECT id, body FROM records ORDER BY id LIMIT ?", limit)
        return [(str(id), body) for id, body in rows]

    def delete_records(self, ids: Sequence[str]) -> None:
        self._transact(
            lambda database: database.executemany("DELETE FROM records WHERE id = ?", [(int(id),) for id in ids])
        )

    def drop_records(self, keep: int) -> int:
        def work(database: sqlite3.Connection) -> int:
            (newest,) = database.execute("SELECT max(id) FROM records").fetchone()
            dropped = database.execute("DELETE FROM records WHERE id <= ?", ((newest or 0) - keep,)).rowcount
            return _add(database, "dropped", dropped)

        return self._transact(work)

    def version(self) -> int:
        if self._database is None and self._path != MEMORY and not Path(self._path).exists():
            return 0  # there is no account yet, and no file is made for that
        rows = self._read("SELECT value FROM numbers WHERE name = 'version'")
        return rows[0][0] if rows else 0

    def bump_version(self) -> None:
        self._transact(lambda database: _add(database, "version", 1))

    def tidy(self, now: float) -> None:
        def work(database: sqlite3.Connection) -> None:
            for owner, body in database.execute(
                "SELECT owner, body FROM books WHERE expires_at < ?", (now,)
            ).fetchall():
                if not MeterBook(body).has_holds:
                    database.execute("DELETE FROM books WHERE owner = ?", (owner,))

        self._transact(work)
        try:
            with self._lock:
                self._open().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except (sqlite3.Error, OSError) as error:
            raise self._failure(error) from error

    def close(self) -> None:
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            with self._lock:
                try:
                    database = self._open()
                    if _begin(database):
                        return _run(database, work)
                except (sqlite3.Error, OSError) as error:
                    raise self._failure(error) from error
            if time.monotonic() >= deadline:
                raise StoreError(f"{self._path}: locked for {BUSY_SECONDS:g} s")
            time.sleep(random.uniform(*BUSY_DELAYS))  # noqa: S311 - not for cryptography

    def _read(self, statement: str, *values: Any) -> list[Any]:
        """Return the rows of a query, which does not wait for writers."""
        try:
            with self._lock:
                return self._open().execute(statement, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> StoreError:
        return StoreError(f"{self._path}: {error}")

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = _connect(self._path)
        return self._database


def _connect(path: str) -> sqlite3.Connection:
    if path != MEMORY:
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        Path(path).touch(mode=0o600)
    database = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA page_size = 1024")  # a call changes few bytes, and writes whole pages
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        for statement in _SCHEMA:
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


def _read_books(database: sqlite3.Connection, meters: Iterable[Meter]) -> dict[str, MeterBook]:
    books: dict[str, MeterBook] = {}
    for meter in meters:
        owner = meter.owner
        if owner not in books:
            row = database.execute(_READ, (owner,)).fetchone()
            books[owner] = MeterBook() if row is None else MeterBook(*row)
    return books


def _write_books(database: sqlite3.Connection, books: dict[str, MeterBook]) -> None:
    for owner, book in books.items():
        database.execute(_WRITE, (owner, book.to_json(), book.expires_at))


def _release_dead_holds(database: sqlite3.Connection) -> None:
    """Release the holds of all processes that are not alive. It reads all books, but only after a process died."""
    alive = {name for (name,) in database.execute("SELECT name FROM holders")}
    for owner, body, expires_at in database.execute("SELECT owner, body, expires_at FROM books").fetchall():
        book = MeterBook(body, expires_at)
        if book.drop_holders(alive):
            database.execute(_WRITE, (owner, book.to_json(), expires_at))


def _take_turn(database: sqlite3.Connection, now: float, until: float) -> bool:
    """Set the end of the turn to `until`, and return True, unless the present one ends after `now`."""
    changed = database.execute(
        "INSERT INTO turn VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET until = excluded.until WHERE until <= ?",
        (until, now),
    )
    return bool(changed.rowcount)


def _add(database: sqlite3.Connection, name: str, amount: int) -> int:
    """Add `amount` to a number of the ledger and return it."""
    row: tuple[int] = database.execute(_ADD, (name, amount)).fetchone()
    return row[0]
