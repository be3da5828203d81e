"""Databases that the tests of this folder share. Each test has owners of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from openai_compat.storage.location import Location, to_location
from openai_compat.storage.native_thread import NativeThread
from openai_compat.storage.opened import Stores
from tests.support.postgres_server import PostgresServer, running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Location:
    if request.param == "sqlite":
        return to_location(f"sqlite:{tmp_path_factory.mktemp('storage') / 'deep' / 'file.db'}")
    server: PostgresServer = request.getfixturevalue("postgres")
    return to_location(server.create_database(f"shared_{token_hex(4)}"))


@pytest.fixture
def stores(location: Location) -> Iterator[Stores]:
    opened = open_stores(location)
    yield opened
    opened.close()


@pytest.fixture
def owner() -> str:
    return token_hex(8)


def open_stores(location: Location, ttl: float = 0.0, max_bytes: int = 0) -> Stores:
    return Stores(location, NativeThread(), ttl, max_bytes)


def sqlite_location(folder: Path) -> Location:
    return to_location(f"sqlite:{folder / 'own.db'}")
