"""SQLAlchemy engines for SQLite and PostgreSQL."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool

from .location import Location

POOL_SIZE: Final = 4
"""Idle connections to PostgreSQL per process. It permits 100 in total by default."""
POOL_OVERFLOW: Final = 4
POOL_TIMEOUT: Final = 5.0
"""Seconds to wait for a connection of the pool."""
CONNECT_TIMEOUT: Final = 5
RECYCLE_SECONDS: Final = 1800
"""Age at which connections are replaced, before a firewall forgets them."""
POSTGRES_OPTIONS: Final[dict[str, Any]] = {
    "connect_timeout": CONNECT_TIMEOUT,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 30,
    "prepare_threshold": None,  # PgBouncer may give each transaction another connection
}
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
        return create_engine(
            location.url,
            pool_size=POOL_SIZE,
            max_overflow=POOL_OVERFLOW,
            pool_timeout=POOL_TIMEOUT,
            pool_recycle=RECYCLE_SECONDS,
            pool_pre_ping=True,
            connect_args=POSTGRES_OPTIONS,
            hide_parameters=True,
        )
    return create_engine(
        "sqlite://", creator=lambda: _connect(path, busy_timeout), poolclass=StaticPool, hide_parameters=True
    )


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
