"""Clients that stream and ask, and whose answers must stay complete and quick."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bench.workloads import EVENTS, KEY, conversation, to_body, to_stream_body

STREAMING_CLIENTS: Final = 50
ASKING_CLIENTS: Final = 50
PAUSE_SECONDS: Final = 0.5
TIMEOUT: Final = 60


@dataclass(slots=True)
class Outcome:
    """Latencies in milliseconds, and a line for each call that failed."""

    first_token_ms: list[float] = field(default_factory=list)
    answer_ms: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class HonestClient(threading.Thread):
    """One client with an address of its own. It makes a call, pauses, and makes the next one until the deadline."""

    def __init__(self, port: int, number: int, deadline: float, outcome: Outcome, *, streams: bool) -> None:
        super().__init__(daemon=True)
        self._outcome = outcome
        self._deadline = deadline
        self._streams = streams
        self._body = to_stream_body(50) if streams else to_body(conversation(2, 380))
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", port, timeout=TIMEOUT, source_address=(f"127.0.1.{number + 1}", 0)
        )

    def run(self) -> None:
        while time.monotonic() < self._deadline:
            try:
                self._call()
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                self._outcome.failures.append(repr(error))
            time.sleep(PAUSE_SECONDS)

    def _call(self) -> None:
        started = time.monotonic()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        self._connection.request("POST", "/v1/chat/completions", self._body, headers)
        response = self._connection.getresponse()
        if response.status != http.client.OK:
            self._outcome.failures.append(f"status {response.status}: {response.read()[:200]!r}")
        elif self._streams:
            self._read_stream(response, started)
        else:
            if not json.loads(response.read())["choices"]:
                self._outcome.failures.append("an answer without choices")
            self._outcome.answer_ms.append((time.monotonic() - started) * 1000)

    def _read_stream(self, response: http.client.HTTPResponse, started: float) -> None:
        count = 0
        line = b""
        while received := response.readline():
            if received.startswith(b"data: {"):
                count += 1
                if count == 1:
                    self._outcome.first_token_ms.append((time.monotonic() - started) * 1000)
            line = received if received.strip() else line
        if count < EVENTS or line != b"data: [DONE]\n":
            self._outcome.failures.append(f"a stream of {count} events that ends in {line[:100]!r}")


def run(port: int, seconds: float) -> dict[str, Any]:
    """Return the outcome of all clients' calls within this time."""
    outcome = Outcome()
    deadline = time.monotonic() + seconds
    clients = [
        HonestClient(port, number, deadline, outcome, streams=number < STREAMING_CLIENTS)
        for number in range(STREAMING_CLIENTS + ASKING_CLIENTS)
    ]
    for client in clients:
        client.start()
        time.sleep(0.02)
    for client in clients:
        client.join()
    return asdict(outcome)


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), float(sys.argv[2]))))
