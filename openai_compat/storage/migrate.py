"""Schema migrations, which run in a process of their own.

Alembic would stall the streams of a worker, and psycopg may not be imported in gunicorn's master. Of several processes
that migrate a database, the first one does it and the others wait for it.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import Final

from .location import Location, to_location

SCHEMA_VERSION: Final = "0004"
"""Newest revision in `migrations/versions`. Revisions are numbers, and only add to the tables.

A worker whose database is newer can therefore still use it, as during a rolling deployment.
"""
TIMEOUT: Final = 120.0
"""Seconds for a migration, including the wait for another process that migrates."""
LOCK_KEY: Final = 7_405_123
"""Key of PostgreSQL's advisory lock, any number that no other program uses."""


class MigrationError(Exception):
    """The schema could not be migrated. The message contains no credentials."""


def is_migrated(location: Location) -> bool:
    """Return True if an SQLite file is known to have the newest schema. It costs less than the process of `migrate`."""
    if location.path is None:
        return False
    try:
        with closing(sqlite3.connect(f"{location.path.as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error:
        return False
    return row is not None and row[0] >= SCHEMA_VERSION


def migrate(location: Location) -> None:
    """Migrate the database to the newest schema, in another process that gets the URL through a pipe.

    Raises:
        MigrationError
    """
    command = [sys.executable, "-m", "openai_compat.storage.migrate"]
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            command, input=location.url, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MigrationError(f"the migration did not run ({type(error).__name__})") from error
    if done.returncode:
        raise MigrationError((done.stderr.strip().splitlines() or ["the migration failed"])[-1])


def run_migrations(location: Location) -> None:
    """Apply all pending revisions in one transaction, which holds the lock."""
    from alembic.command import upgrade
    from alembic.config import Config

    from .engines import open_engine

    config = Config()
    config.set_main_option("script_location", "openai_compat.storage:migrations")
    config.set_main_option("path_separator", "os")
    is_sqlite = location.path is not None
    lock = "BEGIN IMMEDIATE" if is_sqlite else f"BEGIN; SELECT pg_advisory_xact_lock({LOCK_KEY})"
    engine = open_engine(location, busy_timeout=TIMEOUT)
    with engine.begin() as connection:
        connection.exec_driver_sql(lock)
        config.attributes["connection"] = connection
        upgrade(config, "head")
    engine.dispose()


def main() -> int:
    """Migrate the database whose URL is on standard input, and print one line about a failure."""
    try:
        run_migrations(to_location(sys.stdin.read()))
    except Exception as error:  # noqa: BLE001 - the worker logs the line, and a traceback could show the URL's password
        print(f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
