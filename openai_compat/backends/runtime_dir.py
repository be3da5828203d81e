"""Directory with the Unix sockets of a server's sidecars and the lock files that show which processes run.

A lock is a `flock`. The system releases it when the last process that holds it ends, however it ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

PREFIX: Final = "openai-compat-engine-"
STATE_PREFIX: Final = "openai-compat-state-"
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
        return socket_url(self.socket)


def socket_url(path: Path) -> str:
    """Return the URL under which the HTTP client reaches a Unix socket."""
    return f"http+unix://{quote(str(path), safe='')}"


def server_lock_path(path: Path) -> Path:
    """Return the lock file that all processes of a server share, also those with different configurations."""
    return path / "server"


def open_server_folder(configured: str | None) -> str:
    """Create a server's runtime directory and share its lock, which all processes forked from this one inherit.

    Raises:
        PermissionError: the configured directory belongs to another user.
    """
    if configured is None:
        return open_temporary_folder(PREFIX)
    path = Path(configured)
    make_private_folder(path)
    lock_shared(server_lock_path(path))
    return configured


def open_temporary_folder(prefix: str) -> str:
    """Create a temporary directory and share its lock, after the removal of those that killed servers left.

    Another server that starts may take the new directory for such a one until its lock is held.
    """
    _sweep(prefix)
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=temporary_parent()))
        descriptor = lock_shared(server_lock_path(path))
        if server_lock_path(path).exists():
            return str(path)
        os.close(descriptor)


def make_private_folder(path: Path) -> None:
    """Create a directory that only this user can open. An existing one loses the permissions of other users.

    Raises:
        PermissionError: it belongs to another user, who could replace its files.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_own(path):
        raise PermissionError(errno.EPERM, "the directory belongs to another user", str(path))
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)


def is_own(path: Path) -> bool:
    """Return True if the path belongs to the user of this process."""
    return path.stat().st_uid == os.geteuid()


def remove_server_folder(path: str) -> None:
    """Remove a temporary directory when its server ends, unless a sidecar still uses it."""
    directory = Path(path)
    is_temporary = directory.name.startswith((PREFIX, STATE_PREFIX))
    if directory.parent == temporary_parent() and is_temporary and not _has_sidecar(directory):
        shutil.rmtree(directory, ignore_errors=True)


def _sweep(prefix: str) -> None:
    """Remove the temporary directories of this user whose servers and sidecars have all ended."""
    for path in temporary_parent().glob(f"{prefix}*"):
        with suppress(OSError):  # another server removes it at the same time
            if not path.is_symlink() and is_own(path) and server_lock_path(path).exists():
                _remove_unless_locked(path)


def _remove_unless_locked(path: Path) -> None:
    descriptor = try_lock(server_lock_path(path))
    if descriptor is None:
        return
    try:
        if not _has_sidecar(path):
            shutil.rmtree(path)
    finally:
        os.close(descriptor)


def _has_sidecar(path: Path) -> bool:
    return any(is_locked(lock) for lock in path.glob("*.sidecar"))


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
