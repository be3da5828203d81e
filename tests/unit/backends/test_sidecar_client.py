"""Start and end of a sidecar, with a small program in place of a real one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from openai_compat.backends.runtime_dir import RuntimeDir, is_locked
from openai_compat.backends.sidecar_client import SidecarClient
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import CallCancelledError, ModelBusyError, ModelUnavailableError

IDENTITY = "identity"
LISTENING = """\
import os, pathlib, socket, sys
from openai_compat.backends.runtime_dir import RuntimeDir, try_lock

path = pathlib.Path(sys.argv[1])
runtime_dir = RuntimeDir(path, sys.stdin.read())
if try_lock(runtime_dir.sidecar_lock) is None:
    sys.exit()
with (path / "processes").open("a") as file:
    print(os.getpid(), file=file)
listener = socket.socket(socket.AF_UNIX)
listener.bind(str(runtime_dir.socket))
listener.listen()
while True:
    listener.accept()
"""


class Client(SidecarClient):
    title = "test sidecar"

    def __init__(self, path: Path, program: str) -> None:
        super().__init__(path, IDENTITY)
        self._program = program

    def command(self) -> Sequence[str]:
        return sys.executable, "-c", self._program

    def configuration(self) -> bytes:
        return IDENTITY.encode()


def processes(path: Path) -> list[int]:
    file = path / "processes"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "runtime"
    yield path
    for process in processes(path):
        os.kill(process, signal.SIGKILL)


def test_two_clients_share_one_sidecar_and_both_keep_it_running(path: Path) -> None:
    first, second = Client(path, LISTENING), Client(path, LISTENING)
    for client in (first, second):
        client.start(CancellationToken())
        assert client.is_joined
    assert len(processes(path)) == 1
    users_lock = RuntimeDir(path, IDENTITY).users_lock
    first.close()
    assert is_locked(users_lock), "the second client did not start the sidecar, but uses it"
    second.close()
    assert not is_locked(users_lock)


def test_a_killed_sidecar_is_started_again(path: Path) -> None:
    client = Client(path, LISTENING)
    client.start(CancellationToken())
    (process,) = processes(path)
    os.kill(process, signal.SIGKILL)
    (path / "processes").unlink()
    RuntimeDir(path, IDENTITY).socket.unlink()
    client.start(CancellationToken())
    assert len(processes(path)) == 1
    client.close()


def test_a_sidecar_that_ends_with_an_error_is_reported(path: Path) -> None:
    with pytest.raises(ModelBusyError, match="The test sidecar does not start"):
        Client(path, "raise SystemExit(3)").start(CancellationToken())


def test_a_runtime_directory_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelUnavailableError, match="The runtime directory of the test sidecar"):
        Client(tmp_path / "file" / "runtime", LISTENING).start(CancellationToken())


def test_a_cancelled_call_does_not_wait_for_the_start(path: Path) -> None:
    cancellation = CancellationToken()
    cancellation.cancel()
    client = Client(path, "import sys; sys.stdin.read()")
    with pytest.raises(CallCancelledError):
        client.start(cancellation)
    client.close()
