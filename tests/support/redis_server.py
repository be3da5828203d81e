"""A Redis server on a Unix socket, so that no port has to be chosen."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.tools import require_tool
from tests.support.waiting import wait_until


@dataclass
class RedisServer:
    """Server whose data is kept in its folder if it `is_persistent`. `stop` and `start` are an outage and its end."""

    folder: Path
    is_persistent: bool
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    @property
    def _socket(self) -> Path:
        return self.folder / "redis.sock"

    def start(self) -> None:
        log = self.folder / "log"
        options = ["--port", "0", "--unixsocket", str(self._socket), "--save", "", "--dir", str(self.folder)]
        persistence = ["--appendonly", "yes"] if self.is_persistent else []
        command = [str(require_tool("redis-server")), *options, *persistence]
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        wait_until(self._socket.exists, lambda: f"Redis listens:\n{log.read_text()}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def pause(self) -> None:
        """Stop answering, with all connections open."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def running_redis(folder: Path, *, is_persistent: bool = False) -> Iterator[RedisServer]:
    server = RedisServer(folder, is_persistent)
    server.start()
    try:
        yield server
    finally:
        server.resume()
        server.stop()
