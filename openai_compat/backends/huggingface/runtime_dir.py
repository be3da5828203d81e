"""The folder where a server's workers and its engine process find each other: a socket, and locks that tell who lives.

A lock is a `flock`: the system gives it up when the last process that holds it ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import quote

PREFIX: Final = "openai-compat-engine-"
MAX_SOCKET_BYTES: Final = 103
"""The shortest limit there is: macOS's."""
MAX_FOLDER_BYTES: Final = 80


def temporary_parent() -> Path:
    """Where temporary folders are made: `TMPDIR`, unless its path leaves no room for a socket's."""
    usual = Path(tempfile.gettempdir())
    return usual if len(str(usual)) + 2 * len(PREFIX) <= MAX_FOLDER_BYTES else Path("/tmp")  # noqa: S108


class RuntimeDir:
    """`identity` is the plan's: each configuration has an engine of its own."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        self.socket = folder / f"{identity}.sock"
        if len(str(self.socket)) > MAX_SOCKET_BYTES:
            raise ValueError(f"{folder} is too long a path for a socket")
        self.engine_lock = folder / f"{identity}.engine"
        """Held by the one engine."""
        self.users_lock = folder / f"{identity}.users"
        """Shared by the workers whose configuration this is."""
        self.server_lock = to_server_lock(folder)

    @property
    def url(self) -> str:
        return f"http+unix://{quote(str(self.socket), safe='')}"


def to_server_lock(folder: Path) -> Path:
    """The lock that a server's processes share, whatever their configuration."""
    return folder / "server"


def open_server_folder(configured: str | None) -> str:
    """The folder of a server that begins, with a share in its lock, which all that this process forks has too."""
    folder = Path(configured or tempfile.mkdtemp(prefix=PREFIX, dir=temporary_parent()))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock_shared(to_server_lock(folder))
    return str(folder)


def remove_server_folder(path: str) -> None:
    """Removes a temporary folder at the end, unless an engine still needs it."""
    folder = Path(path)
    if folder.parent != temporary_parent() or not folder.name.startswith(PREFIX):
        return
    if not any(is_locked(lock) for lock in folder.glob("*.engine")):
        shutil.rmtree(folder, ignore_errors=True)


def lock_shared(path: Path) -> int:
    """Joins those who hold the lock, until the descriptor is closed or the process and all it has forked are gone."""
    descriptor = _open(path)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock alone, or None where somebody has it."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether anybody holds the lock."""
    descriptor = try_lock(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
