"""A Redis of the test's own, on a Unix socket: no port to race for."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.tools import require_tool


@dataclass(frozen=True)
class RedisServer:
    url: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    place, log = folder / "redis.sock", folder / "log"
    options = ["--port", "0", "--unixsocket", str(place), "--save", "", "--dir", str(folder)]
    with log.open("wb") as output:
        process = subprocess.Popen([require_tool("redis-server"), *options], stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 20
        while not place.exists():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield RedisServer(f"unix://{place}", process)
    finally:
        process.terminate()
        process.wait(10)
