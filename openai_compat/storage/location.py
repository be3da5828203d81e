"""Address of the database, from the settings `DATABASE_URL` and `DATA_DIR`."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from openai_compat.core.errors import ConfigurationError
from openai_compat.core.extras import install_hint

FILE_NAME: Final = "openai-compat.db"
POSTGRES_DRIVER: Final = "postgresql+psycopg"


@dataclass(frozen=True, slots=True)
class Location:
    """The SQLAlchemy URL of a PostgreSQL database, or the path of an SQLite file.

    The file is the default one if the operator named no database.
    """

    url: str
    path: Path | None = None
    is_default: bool = False

    def is_new(self) -> bool:
        """Return True if it is an SQLite file that does not exist yet, or that this process may not see."""
        return self.path is not None and not os.path.exists(self.path)  # noqa: PTH110 - Path raises without permission

    def is_read_only(self) -> bool:
        """Return True if the file is the default one and cannot be written, as in a container without a volume."""
        return self.is_default and self.path is not None and not _is_writable(self.path)


def locate(database_url: str | None, data_dir: str) -> Location:
    """Return the location of the database, an SQLite file in `data_dir` by default.

    Raises:
        ConfigurationError: PostgreSQL needs an extra that is not installed.
    """
    if database_url is None:
        return replace(to_location(f"sqlite:{Path(data_dir) / FILE_NAME}"), is_default=True)
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


def _is_writable(path: Path) -> bool:
    """Return True if the file and its directory can be written, or be created."""
    if os.path.exists(path) and not os.access(path, os.W_OK):  # noqa: PTH110 - as above
        return False
    existing = next(folder for folder in path.parents if os.path.exists(folder))  # noqa: PTH110 - as above
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
