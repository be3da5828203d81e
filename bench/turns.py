"""CPU time of a server for several kinds of calls, which take turns so that other load affects all of them alike."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from .processes import cpu_ns, descendants
from .regression.single_client import exchange
from .workloads import to_request

WARM_UP_CALLS: Final = 200


@dataclass(frozen=True, slots=True)
class Call:
    """A kind of call. `pid` is the server's main process, and `end` are the last bytes of the response.

    `headers` replace those of the client.
    """

    pid: int
    port: int
    path: str
    body: bytes
    end: bytes = b"}"
    headers: Mapping[str, str] = field(default_factory=dict)

    def repeat(self, count: int) -> None:
        """Make the call `count` times on one connection."""
        request = to_request(self.body, self.port, self.headers, self.path)
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            for _ in range(count):
                exchange(client, request, self.end)


def measure_in_turns(calls: Mapping[str, Call], rounds: int, count: int, clients: int = 1) -> dict[str, float]:
    """Return the microseconds of CPU time for one call of each kind, as the median of `rounds` turns.

    In each turn `clients` connections make `count` calls together.
    """
    for call in calls.values():
        _run(call, min(count, WARM_UP_CALLS), clients)
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            before = _tree_cpu_ns(call.pid)
            _run(call, count, clients)
            samples[name].append((_tree_cpu_ns(call.pid) - before) / 1000 / count)
    return {name: median(values) for name, values in samples.items()}


def _run(call: Call, count: int, clients: int) -> None:
    threads: Sequence[threading.Thread] = [
        threading.Thread(target=call.repeat, args=(count // clients,)) for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _tree_cpu_ns(pid: int) -> int:
    return sum(map(cpu_ns, descendants(pid)))
