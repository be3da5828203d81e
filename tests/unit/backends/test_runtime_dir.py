"""Directories of a server: their owner, their permissions, and the removal of those that were left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from openai_compat.backends import runtime_dir
from openai_compat.backends.runtime_dir import PREFIX, open_server_folder, open_temporary_folder, remove_server_folder
from openai_compat.config.environment import load_settings
from openai_compat.core.errors import ConfigurationError

OPEN_AND_DIE = (
    "import os, sys; from openai_compat.backends.runtime_dir import open_temporary_folder, PREFIX; "
    "print(open_temporary_folder(PREFIX), flush=True); sys.stdin.read(1); os.kill(os.getpid(), 9)"
)


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runtime_dir, "temporary_parent", lambda: tmp_path)
    return tmp_path


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def foreign_folder() -> Iterator[str]:
    """A directory of another user, with a path that is short enough for a socket."""
    if os.geteuid() != 0:
        yield "/"
        return
    with TemporaryDirectory() as folder:
        os.chown(folder, 12_345, -1)
        yield folder


def test_a_directory_of_another_user_is_refused(foreign_folder: str) -> None:
    with pytest.raises(PermissionError, match="belongs to another user"):
        open_server_folder(foreign_folder)
    with pytest.raises(ConfigurationError, match="LOCAL_RUNTIME_DIR must be a directory of the user that runs"):
        load_settings(LOCAL_RUNTIME_DIR=foreign_folder)


def test_a_configured_directory_becomes_private(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    for folder in (shared, tmp_path / "new" / "folder"):
        assert open_server_folder(str(folder)) == str(folder)
        assert mode_of(folder) == 0o700
        assert mode_of(folder / "server") == 0o600


def test_a_directory_that_a_killed_server_left_is_removed_by_the_next_one() -> None:
    with TemporaryDirectory(dir="/tmp") as name, start_server(name) as first, start_server(name) as running:
        left, kept = path_of(first), path_of(running)
        first.communicate("x")
        assert left.exists()
        with start_server(name) as other:
            other.communicate("x")
        assert not left.exists()
        assert kept.exists()
        running.communicate("x")


def start_server(parent: str) -> subprocess.Popen[str]:
    """Start a process that opens a directory in `parent`, prints its path, and is killed when it gets a line."""
    environment = {**os.environ, "TMPDIR": parent}
    command = [sys.executable, "-c", OPEN_AND_DIE]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def path_of(server: subprocess.Popen[str]) -> Path:
    assert server.stdout is not None
    return Path(server.stdout.readline().strip())


def test_other_directories_are_not_removed(parent: Path) -> None:
    with_sidecar, unknown = parent / f"{PREFIX}a", parent / f"{PREFIX}b"
    for folder in (with_sidecar, unknown):
        folder.mkdir()
    (with_sidecar / "server").touch()
    (parent / f"{PREFIX}link").symlink_to(with_sidecar)
    sidecar = runtime_dir.try_lock(with_sidecar / "x.sidecar")
    assert sidecar is not None
    opened = open_temporary_folder(PREFIX)
    assert with_sidecar.exists()
    assert unknown.exists()
    os.close(sidecar)
    open_temporary_folder(PREFIX)
    assert not with_sidecar.exists()
    assert unknown.exists()
    assert Path(opened).exists()
    remove_server_folder(opened)
    assert not Path(opened).exists()
