"""Directory with the Unix sockets of a server's sidecars and the lock files that show which processes run.

A lock is a `flock`. The system releases it when the last process that holds it ends, however it ends.
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
"""The limit of macOS for a socket's path, the lowest of all systems."""
MAX_FOLDER_BYTES: Final = 80


def temporary_parent() -> Path:
    """Return `TMPDIR`, or `/tmp` if its path leaves no space for that of a socket."""
    default = Path(tempfile.gettempdir())
    return default if len(str(default)) + 2 * len(PREFIX) <= MAX_FOLDER_BYTES else Path("/tmp")  # noqa: S108


class RuntimeDir:
    """Paths of one sidecar's files. `identity` names its configuration, because each one has its own sidecar."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self.socket = path / f"{identity}.sock"
        if len(str(self.socket)) > MAX_SOCKET_BYTES:
            raise ValueError(f"{path} is too long a path for a socket")
        self.sidecar_lock = path / f"{identity}.sidecar"
        """Held by the running sidecar."""
        self.users_lock = path / f"{identity}.users"
        """Shared by the workers with this configuration."""
        self.server_lock = server_lock_path(path)

    @property
    def url(self) -> str:
        return f"http+unix://{quote(str(self.socket), safe='')}"


def server_lock_path(path: Path) -> Path:
    """Return the lock file that all processes of a server share, also those with different configurations."""
    return path / "server"


def open_server_folder(configured: str | None) -> str:
    """Create a server's runtime directory and share its lock, which all processes forked from this one inherit."""
    path = Path(configured or tempfile.mkdtemp(prefix=PREFIX, dir=temporary_parent()))
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock_shared(server_lock_path(path))
    return str(path)


def remove_server_folder(path: str) -> None:
    """Remove a temporary runtime directory when its server ends, unless a sidecar still uses it."""
    directory = Path(path)
    if directory.parent != temporary_parent() or not directory.name.startswith(PREFIX):
        return
    if not any(is_locked(lock) for lock in directory.glob("*.sidecar")):
        shutil.rmtree(directory, ignore_errors=True)


def lock_shared(path: Path) -> int:
    """Take a shared lock until the descriptor is closed, or this process and all that it forked have ended."""
    descriptor = _open(path)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def try_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock exclusively, or None if the lock is taken."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_locked(path: Path) -> bool:
    """Return True if any process holds the lock."""
    descriptor = try_lock(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
