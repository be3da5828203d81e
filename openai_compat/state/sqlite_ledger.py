"""Ledger in an SQLite file, which the workers of one machine share."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from .ledger import HOLDER_SECONDS, Charge, ColdLedgerError, Ledger, Level, Meter, Refusal, Settlement
from .meter_book import MeterBook
from .sqlite_file import MEMORY, SQLiteFile

EMPTY: Final = MeterBook()

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS books (owner TEXT PRIMARY KEY, body TEXT NOT NULL, expires_at REAL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS holders (name TEXT PRIMARY KEY, expires_at REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS turn (id INTEGER PRIMARY KEY, until REAL NOT NULL)",
    "CREATE TABLE IF NOT EXISTS numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
)
_STARTED: Final = ("INSERT OR IGNORE INTO numbers VALUES ('version', 0)",)
_START: Final = "INSERT OR IGNORE INTO numbers VALUES ('version', ?)"
_BUMP_VERSION: Final = "UPDATE numbers SET value = value + 1 WHERE name = 'version'"
_READ_VERSION: Final = "SELECT value FROM numbers WHERE name = 'version'"
_READ: Final = "SELECT body, expires_at FROM books WHERE owner = ?"
_FIND_HOLDER: Final = "SELECT owner, body, expires_at FROM books WHERE instr(body, ?)"
_INSERT: Final = "INSERT INTO books (body, expires_at, owner) VALUES (?, ?, ?)"
_UPDATE: Final = "UPDATE books SET body = ?, expires_at = ? WHERE owner = ?"
_ADD: Final = (
    "INSERT INTO numbers VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value RETURNING value"
)


class SQLiteLedger(Ledger):
    """Ledger in an SQLite database in WAL mode. What was committed survives the death of any process.

    The log is written back by `tidy`, in a native thread. A database in memory cannot lose its contents, and is never
    cold.
    """

    def __init__(
        self,
        path: str,
        holder: str,
        clock: Callable[[], float] = time.time,
        holder_seconds: float = HOLDER_SECONDS,
    ) -> None:
        """Use the file at `path` for the process `holder`."""
        self._path = path
        self._holder = holder
        self._clock = clock
        self._holder_seconds = holder_seconds
        self._is_started = self._has_signed = False
        self._file = SQLiteFile(path, _SCHEMA + _STARTED if path == MEMORY else _SCHEMA, self._note_opened)

    @property
    def holder(self) -> str:
        return self._holder

    def for_holder(self, holder: str) -> SQLiteLedger:
        return SQLiteLedger(self._path, holder, self._clock, self._holder_seconds)

    def reserve(self, hold_id: str, charges: Sequence[Charge]) -> Sequence[Level] | Refusal:
        now = self._clock()

        def work(database: sqlite3.Connection) -> Sequence[Level] | Refusal:
            self._check_started(database)
            if not self._has_signed:  # or the holds would outlive a process that dies before `keep_alive`
                self._sign(database, now)
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

        return self._file.transact(work)

    def settle(self, hold_id: str, settlements: Sequence[Settlement], record: str | None) -> None:
        now = self._clock()

        def work(database: sqlite3.Connection) -> None:
            self._check_started(database)
            books = _read_books(database, [settlement.meter for settlement in settlements])
            for settlement in settlements:
                books[settlement.meter.owner].settle(settlement, self._holder, now)
            _write_books(database, books)
            if record is not None:
                database.execute("INSERT INTO records (body) VALUES (?)", (record,))

        self._file.transact(work)

    def levels(self, meters: Sequence[Meter]) -> Sequence[Level]:
        owners = {meter.owner for meter in meters}
        books = {owner: MeterBook(*row) for owner in owners for row in self._file.read(_READ, owner)}
        return [books.get(meter.owner, EMPTY).level(meter) for meter in meters]

    def restore(self, levels: Sequence[tuple[Meter, Level]]) -> None:
        now = self._clock()

        def work(database: sqlite3.Connection) -> None:
            if not _is_cold(database):
                return
            books = _read_books(database, [meter for meter, _ in levels])
            for meter, level in levels:
                books[meter.owner].set_level(meter, level.current, level.previous, now)
            _write_books(database, books)

        self._file.transact(work)

    def start(self, version: int) -> None:
        self._file.transact(lambda database: database.execute(_START, (version,)))

    def keep_alive(self, now: float) -> None:
        def work(database: sqlite3.Connection) -> None:
            self._sign(database, now)
            for (holder,) in database.execute("SELECT name FROM holders WHERE expires_at <= ?", (now,)).fetchall():
                _release_holds(database, holder)

        self._file.transact(work)

    def begin_turn(self, now: float, seconds: float) -> bool:
        return self._file.transact(lambda database: _take_turn(database, now, now + seconds))

    def end_turn(self) -> None:
        self._file.transact(lambda database: _take_turn(database, math.inf, 0))

    def records(self, limit: int) -> Sequence[tuple[str, str]]:
        rows = self._file.read("SELECT id, body FROM records WHERE body != '' ORDER BY id LIMIT ?", limit)
        return [(str(id), body) for id, body in rows]

    def delete_records(self, ids: Sequence[str]) -> None:
        """Delete records. An empty one keeps the id of the last, or the next record would get the same id.

        Another process that has read the same records may still delete them. `AUTOINCREMENT` would take 8 µs a call.
        """
        if not ids:
            return
        last = (int(ids[-1]),)  # there are no others before it

        def work(database: sqlite3.Connection) -> None:
            database.execute("DELETE FROM records WHERE id <= ?", last)
            database.execute("INSERT INTO records SELECT ?, '' WHERE NOT EXISTS (SELECT 1 FROM records)", last)

        self._file.transact(work)

    def drop_records(self, keep: int) -> int:
        def work(database: sqlite3.Connection) -> int:
            (newest,) = database.execute("SELECT max(id) FROM records").fetchone()
            oldest_kept = (newest or 0) - keep + 1
            deleted = database.execute("DELETE FROM records WHERE id < ? AND body != ''", (oldest_kept,))
            return _add(database, "dropped", deleted.rowcount)

        return self._file.transact(work)

    def version(self) -> int | None:
        if self._file.is_absent:
            return None  # and no file is made for that
        rows = self._file.read(_READ_VERSION)
        return rows[0][0] if rows else None

    def bump_version(self) -> None:
        self._file.transact(
            lambda database: database.execute("UPDATE numbers SET value = value + 1 WHERE name = 'version'")
        )

    def tidy(self, now: float) -> None:
        def work(database: sqlite3.Connection) -> None:
            for owner, body in database.execute(
                "SELECT owner, body FROM books WHERE expires_at < ?", (now,)
            ).fetchall():
                if not MeterBook(body).has_holds:
                    database.execute("DELETE FROM books WHERE owner = ?", (owner,))

        self._file.transact(work)
        self._file.read("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        self._file.close()

    def _note_opened(self) -> None:
        self._is_started = self._has_signed = False

    def _check_started(self, database: sqlite3.Connection) -> None:
        """Raise an error if the ledger is cold.

        Raises:
            ColdLedgerError
        """
        if not self._is_started:
            self._is_started = not _is_cold(database)
            if not self._is_started:
                raise ColdLedgerError(f"{self._path} is new and is restored from the database")

    def _sign(self, database: sqlite3.Connection, now: float) -> None:
        database.execute("REPLACE INTO holders VALUES (?, ?)", (self._holder, now + self._holder_seconds))
        self._has_signed = True


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
        statement = _INSERT if book.is_new else _UPDATE  # `REPLACE` writes twice as many pages
        database.execute(statement, (book.to_json(), book.expires_at, owner))


def _release_holds(database: sqlite3.Connection, holder: str) -> None:
    """Release all holds of a process that is gone. The search for them by SQLite takes 1 ms for 1,000 books."""
    rows = database.execute(_FIND_HOLDER, (f'"{holder}":',)).fetchall()
    for owner, body, expires_at in rows:
        book = MeterBook(body, expires_at)
        book.drop_holder(holder)
        database.execute(_UPDATE, (book.to_json(), expires_at, owner))
    database.execute("DELETE FROM holders WHERE name = ?", (holder,))


def _is_cold(database: sqlite3.Connection) -> bool:
    return database.execute(_READ_VERSION).fetchone() is None


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
