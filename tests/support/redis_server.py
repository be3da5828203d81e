"""A Redis server on a Unix socket, so that no port has to be chosen."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.tools import require_tool
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class RedisServer:
    url: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    path, log = folder / "redis.sock", folder / "log"
    options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(folder)]
    with log.open("wb") as output:
        process = subprocess.Popen([require_tool("redis-server"), *options], stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until(path.exists, lambda: f"Redis listens:\n{log.read_text()}")
        yield RedisServer(f"unix://{path}", process)
    finally:
        process.terminate()
        process.wait(10)
