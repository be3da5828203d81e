"""Transactions on the database, which is opened and migrated on first use."""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import closing
from functools import cached_property
from math import inf
from typing import Final, TypeVar, cast

from gevent import Timeout
from sqlalchemy import Connection, Engine, PoolProxiedConnection, inspect, literal, select, table
from sqlalchemy import column as column_of
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import ManagesConnection, StaticPool

from openai_compat.core.errors import StorageUnavailableError

from .engines import open_engine, open_unpooled_engine
from .grouped_insertion import GroupedInsertion
from .insertion import NewRows, insert_into_postgres
from .location import Location
from .migrate import SCHEMA_VERSION, MigrationError, migrate
from .native_thread import NativeThread

log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[Connection], T]

BUSY_DEADLINE: Final = 5.0
"""Seconds to wait while other processes write to SQLite."""
BUSY_DELAYS: Final = (0.0005, 0.002)
POSTGRES_TIMEOUT: Final = 10.0
"""Seconds for one transaction, including the wait for a connection."""
RETRY_INTERVAL: Final = 1.0
"""Seconds without an attempt after the database could not be opened, as each one may take long."""

CHECK_INTERVAL: Final = 1.0
"""Seconds for which a database that has answered is taken to be available."""

LARGE_BYTES: Final = 1_000_000
"""Size of a read or a write that is kept from stopping the streams. With psycopg, 1 MB takes about 2 ms."""

FAILURES: Final = (SQLAlchemyError, sqlite3.Error, OSError, MigrationError, Timeout)
"""Errors of a database that is away, full, damaged or too slow."""

_BEGIN_READ: Final = "BEGIN"
_BEGIN_WRITE: Final = "BEGIN IMMEDIATE"
_PING = select(literal(1))
_VERSIONS = table("alembic_version", column_of("version_num"))


class Database(ABC):
    """Database of one process. A fork opens its own connections.

    `read` and `write` run a function in a transaction, and once more if the transaction could not start. What the
    function returns must not need the connection any more.
    """

    def __init__(self, location: Location, thread: NativeThread) -> None:
        self._location = location
        self._thread = thread
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._process = os.getpid()
        self._retry_at = 0.0
        self._succeeded_at = -inf

    def check(self) -> None:
        """Raise an error if the database does not answer, unless it did within `CHECK_INTERVAL`.

        Raises:
            StorageUnavailableError
        """
        if time.monotonic() - self._succeeded_at > CHECK_INTERVAL:
            self.read(lambda connection: connection.execute(_PING).scalar())

    def read(self, work: Work[T], size: int = 0) -> T:
        """Run `work`, which only reads, about `size` bytes.

        Raises:
            StorageUnavailableError
        """
        return self._run(lambda engine: self._transact(engine, work, is_write=False), size)

    def write(self, work: Work[T], size: int = 0) -> T:
        """Run `work`, which writes about `size` bytes, and commit.

        Raises:
            StorageUnavailableError, sqlalchemy's IntegrityError
        """
        return self._run(lambda engine: self._transact(engine, work, is_write=True), size)

    def insert(self, rows: NewRows) -> None:
        """Insert an object and commit.

        Raises:
            StorageUnavailableError
        """
        self._run(lambda engine: self._insert(engine, rows), rows.size)

    def close(self) -> None:
        """Close the connections. The next call opens new ones."""
        with self._lock:
            self._drop()

    def _run(self, access: Callable[[Engine], T], size: int = 0) -> T:
        try:
            engine = self._open()
            result = self._access_large(access) if size >= LARGE_BYTES else access(engine)
        except (IntegrityError, sqlite3.IntegrityError):
            raise
        except FAILURES as error:
            self._succeeded_at = -inf
            self.close()
            raise StorageUnavailableError from error
        self._succeeded_at = time.monotonic()
        return result

    def _open(self) -> Engine:
        """Return the engine of this process. Of concurrent callers, one opens it and migrates the schema."""
        engine = self._engine
        if engine is not None and self._is_current():
            return engine
        with self._lock:
            if self._engine is not None and not self._is_current():
                self._drop()
            if self._engine is None:
                self._engine = self._prepare()
            return self._engine

    def _prepare(self) -> Engine:
        if time.monotonic() < self._retry_at:
            raise StorageUnavailableError
        try:
            engine = open_engine(self._location)
            if self._transact(engine, _read_version, is_write=False) < SCHEMA_VERSION:
                migrate(self._location)
        except FAILURES as error:
            self._retry_at = time.monotonic() + RETRY_INTERVAL
            log.warning("the database cannot be used: %s", _describe(error))
            raise
        self._process = os.getpid()
        return engine

    def _is_current(self) -> bool:
        """Return False after a fork, whose parent still uses the connections."""
        return self._process == os.getpid()

    def _drop(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            is_own = self._process == os.getpid()
            self._thread.call(lambda: engine.dispose(close=is_own))

    @abstractmethod
    def _access_large(self, access: Callable[[Engine], T]) -> T:
        """Call `access`, which transfers many bytes, with an engine. The streams of the worker go on meanwhile."""

    @abstractmethod
    def _transact(self, engine: Engine, work: Work[T], *, is_write: bool) -> T: ...

    @abstractmethod
    def _insert(self, engine: Engine, rows: NewRows) -> None: ...


class PostgresDatabase(Database):
    """PostgreSQL, whose driver waits cooperatively under gevent.

    The driver copies a text in one step. A large one is therefore transferred by the native thread, over a connection
    that is opened for it, because the pool belongs to the worker's own thread.
    """

    def _access_large(self, access: Callable[[Engine], T]) -> T:
        return self._thread.call(lambda: access(self._large_engine))

    @cached_property
    def _large_engine(self) -> Engine:
        return open_unpooled_engine(self._location)

    def _transact(self, engine: Engine, work: Work[T], *, is_write: bool) -> T:
        with Timeout(POSTGRES_TIMEOUT), engine.begin() as connection:
            if is_write:
                connection.exec_driver_sql("BEGIN")
            return work(connection)

    def _insert(self, engine: Engine, rows: NewRows) -> None:
        driver = engine.dialect.loaded_dbapi
        try:
            with Timeout(POSTGRES_TIMEOUT), closing(engine.raw_connection()) as connection:
                _insert_or_invalidate(connection, rows)
        except driver.Error as error:
            raise DBAPIError.instance(None, None, error, driver.Error) from error


class SQLiteDatabase(Database):
    """SQLite file, used in a native thread.

    In the worker's own thread, a row of 16 MB stops all streams for 90 ms. In the native thread it does for at most
    20 ms.
    """

    _inode: tuple[int, int] | None = None

    def __init__(self, location: Location, thread: NativeThread) -> None:
        super().__init__(location, thread)
        self._file = str(location.path)
        self._insertion = GroupedInsertion()

    def _access_large(self, access: Callable[[Engine], T]) -> T:
        return access(self._open())

    def _transact(self, engine: Engine, work: Work[T], *, is_write: bool) -> T:
        begin = _BEGIN_WRITE if is_write else _BEGIN_READ
        return self._call(lambda: _run_in_transaction(engine, work, begin))

    def _insert(self, engine: Engine, rows: NewRows) -> None:
        own = self._insertion.add(rows)
        self._call(lambda: self._insertion.insert(_driver_of(cast(StaticPool, engine.pool).connection), own))

    def _call(self, function: Callable[[], T]) -> T:
        """Run `function` in the thread, and wait for other processes outside it, so that other calls can use it."""
        deadline = time.monotonic() + BUSY_DEADLINE
        while True:
            try:
                return self._thread.call(function)
            except (OperationalError, sqlite3.OperationalError) as error:
                if not _is_busy(error) or time.monotonic() >= deadline:
                    raise
            time.sleep(random.uniform(*BUSY_DELAYS))  # noqa: S311 - not for cryptography

    def _prepare(self) -> Engine:
        engine = super()._prepare()
        self._inode = self._identify()
        return engine

    def _is_current(self) -> bool:
        """Return False also if the file was deleted or replaced, as writes to the old one would be lost."""
        return super()._is_current() and self._inode == self._identify()

    def _identify(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._file)  # noqa: PTH116 - each call does it, and a Path takes three times as long
        except OSError:
            return None
        return status.st_dev, status.st_ino


def open_database(location: Location, thread: NativeThread) -> Database:
    """Return the database at `location`. It connects on first use."""
    return (PostgresDatabase if location.path is None else SQLiteDatabase)(location, thread)


def _insert_or_invalidate(connection: PoolProxiedConnection, rows: NewRows) -> None:
    try:
        insert_into_postgres(connection, rows)
    except BaseException:
        connection.invalidate()  # a statement that was cut off may still run
        raise


def _run_in_transaction(engine: Engine, work: Work[T], begin: str) -> T:
    with engine.begin() as connection:
        _driver_of(connection.connection).execute(begin)  # 25 µs less than by SQLAlchemy
        return work(connection)


def _driver_of(pooled: ManagesConnection) -> sqlite3.Connection:
    connection = cast("sqlite3.Connection | None", pooled.driver_connection)
    assert connection is not None  # noqa: S101 - the pool never returns one that is closed
    return connection


def _read_version(connection: Connection) -> str:
    """Return the revision of the schema, an empty text for a new database."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return connection.execute(select(_VERSIONS.c.version_num)).scalar() or ""


def _is_busy(error: OperationalError | sqlite3.OperationalError) -> bool:
    cause = error.orig if isinstance(error, OperationalError) else error
    name = cause.sqlite_errorname if isinstance(cause, sqlite3.OperationalError) else ""
    return name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _describe(error: BaseException) -> str:
    """Return the first line of the driver's message, which has the host but neither statement nor password."""
    cause = getattr(error, "orig", None) or error
    return next(iter(str(cause).splitlines()), type(error).__name__)
