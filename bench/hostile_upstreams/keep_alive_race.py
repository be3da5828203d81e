"""Race between a call and the upstream's close of the idle connection that the call reuses.

As the program `python -m bench.hostile_upstreams.keep_alive_race` it is the client, which needs gevent's patches.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

CALLS: Final = 4000
CALLERS: Final = 40
KEEP_ALIVE: Final = 0.05
"""Seconds after which the upstream closes an idle connection."""
RESET_SHARE: Final = 0.015
"""Share of the calls whose connection an upstream that `resets` closes after it has read them."""
ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Upstream(asyncio.Protocol):
    """An upstream that counts the requests that it reads by their path."""

    def __init__(self, read: Counter[str], *, resets: bool) -> None:
        self._read = read
        self._resets = resets
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer a request, which arrives in one piece, and close the connection later."""
        if self._timer is not None:
            self._timer.cancel()
        path = data.split(b" ", 2)[1].decode()
        self._read[path] += 1
        if self._resets and self._timer is not None and random.random() < RESET_SHARE:
            self._transport.abort()
            return
        self._transport.write(ANSWER)
        self._timer = asyncio.get_running_loop().call_later(KEEP_ALIVE, self._transport.close)


def measure_races() -> Iterator[str]:
    """Yield a line for an upstream that closes idle connections, and for one that also resets some after reading."""
    for resets in (False, True):
        read: Counter[str] = Counter()
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        create = loop.create_server(lambda: Upstream(read, resets=resets), "127.0.0.1", 0, backlog=512)  # noqa: B023
        server = asyncio.run_coroutine_threadsafe(create, loop).result()
        port = server.sockets[0].getsockname()[1]
        command = [sys.executable, "-m", "bench.hostile_upstreams.keep_alive_race", str(port)]
        outcomes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        name = "resets some requests" if resets else "closes idle connections"
        yield f"upstream that {name}: {outcomes}, processed twice: {sum(times > 1 for times in read.values())}"


def run_client(port: int) -> None:
    """Send `CALLS` calls, each when the upstream is about to close its connection. Print their outcomes."""
    from openai_compat.backends.http.client import UpstreamClient
    from openai_compat.core.errors import UpstreamError
    from openai_compat.core.settings import Settings
    from openai_compat.core.timeouts import Timeouts
    from openai_compat.core.types import CallContext

    client, outcomes, numbers = UpstreamClient(Settings()), Counter[str](), iter(range(CALLS))

    def call_repeatedly() -> None:
        for number in numbers:
            context = CallContext(str(number))
            url = f"http://127.0.0.1:{port}/{number}"
            try:
                client.send("POST", url, headers={}, body=b"{}", timeouts=Timeouts(), context=context).read()
                outcomes["complete"] += 1
            except UpstreamError:
                outcomes["failed"] += 1
            outcomes["sent again"] += len(context.resends)
            time.sleep(KEEP_ALIVE + random.uniform(-0.004, 0.001))

    callers = [threading.Thread(target=call_repeatedly) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    print(", ".join(f"{name}: {outcomes[name]}" for name in ("complete", "failed", "sent again")))


if __name__ == "__main__":
    from gevent.monkey import patch_all

    patch_all()
    run_client(int(sys.argv[1]))
