"""SQLAlchemy engines for SQLite and PostgreSQL."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, StaticPool

from .location import Location

POOL_SIZE: Final = 4
"""Idle connections to PostgreSQL per process. It permits 100 in total by default."""
POOL_OVERFLOW: Final = 4
POOL_TIMEOUT: Final = 5.0
"""Seconds to wait for a connection of the pool."""
CONNECT_TIMEOUT: Final = 5
RECYCLE_SECONDS: Final = 1800
"""Age at which connections are replaced, before a firewall forgets them."""
TRUSTED_SECONDS: Final = 1.0
"""Idle time after which a connection is tested before its use, which takes a round trip and 110 µs of CPU."""
POSTGRES_OPTIONS: Final[dict[str, Any]] = {
    "connect_timeout": CONNECT_TIMEOUT,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 30,
    "prepare_threshold": None,  # PgBouncer may give each transaction another connection
}
_POSTGRES_ENGINE: Final[dict[str, Any]] = {
    "connect_args": POSTGRES_OPTIONS,
    "hide_parameters": True,
    "isolation_level": "AUTOCOMMIT",  # a read needs no transaction, and one that writes begins explicitly
}
_USED_AT: Final = "used_at"
SQLITE_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",  # readers and a writer do not block each other
    "PRAGMA synchronous = NORMAL",  # outlasts crashes of processes; a flush for each write would cost 300 µs of CPU
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = FAST",
)


def open_engine(location: Location, *, busy_timeout: float = 0.0) -> Engine:
    """Return an engine, for SQLite with a single connection that any thread may use.

    SQLite sleeps up to `busy_timeout` seconds while another process writes.
    """
    path = location.path
    if path is None:
        return _open_pool(location.url)
    return create_engine(
        "sqlite://", creator=lambda: _connect(path, busy_timeout), poolclass=StaticPool, hide_parameters=True
    )


def open_unpooled_engine(location: Location) -> Engine:
    """Return an engine for PostgreSQL that opens a connection for each transaction, for use in a native thread."""
    from .postgres_text import connect_gently  # the extra `postgres`

    engine = create_engine(location.url, poolclass=NullPool, **_POSTGRES_ENGINE)
    event.listen(engine, "do_connect", connect_gently)
    return engine


def _open_pool(url: str) -> Engine:
    engine = create_engine(
        url,
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=POOL_TIMEOUT,
        pool_recycle=RECYCLE_SECONDS,
        pool_reset_on_return=None,  # every transaction has ended before
        **_POSTGRES_ENGINE,
    )
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", lambda connection, record, _: _test_idle(engine, connection, record))
    return engine


def _note_use(_: Any, record: ConnectionPoolEntry) -> None:
    record.info[_USED_AT] = time.monotonic()


def _test_idle(engine: Engine, connection: Any, record: ConnectionPoolEntry) -> None:
    """Test a connection that was idle for a while, and replace all idle ones if it is broken."""
    used_at = record.info.get(_USED_AT)
    if used_at is None or time.monotonic() - used_at < TRUSTED_SECONDS:
        return
    try:
        engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError from error


def _connect(path: Path, busy_timeout: float) -> sqlite3.Connection:
    """Open the file, which only its owner may read. Transactions begin explicitly."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
    try:
        for pragma in SQLITE_PRAGMAS:
            connection.execute(pragma)
    except sqlite3.Error:
        connection.close()
        raise
    return connection
