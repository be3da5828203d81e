"""Address of the database, from the settings `DATABASE_URL` and `DATA_DIR`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from openai_compat.core.errors import ConfigurationError
from openai_compat.core.extras import install_hint

FILE_NAME: Final = "openai-compat.db"
POSTGRES_DRIVER: Final = "postgresql+psycopg"


@dataclass(frozen=True, slots=True)
class Location:
    """The SQLAlchemy URL of a PostgreSQL database, or the path of an SQLite file."""

    url: str
    path: Path | None = None


def locate(database_url: str | None, data_dir: str) -> Location:
    """Return the location of the database, an SQLite file in `data_dir` by default.

    Raises:
        ConfigurationError: PostgreSQL needs an extra that is not installed.
    """
    if database_url is None:
        return to_location(f"sqlite:{Path(data_dir) / FILE_NAME}")
    location = to_location(database_url)
    if location.path is None and find_spec("psycopg") is None:
        raise ConfigurationError([f"DATABASE_URL needs {install_hint('postgres')}"])
    return location


def to_location(url: str) -> Location:
    """Return the location of a URL of either kind."""
    if url.startswith("sqlite:"):
        path = Path(url.removeprefix("sqlite:").removeprefix("///")).absolute()
        return Location(f"sqlite:{path}", path)
    return Location(f"{POSTGRES_DRIVER}://{url.partition('://')[2]}")
