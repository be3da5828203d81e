"""1,000 streams at once, `python -m bench.many_streams`.

It prints how many streams of chats and of responses failed, the memory of the worker before and while all of them run,
and the time to the first event. A chat is passed through and translated, because a response is translated to a chat.
Each kind has a server of its own. The events of a stream are 200 ms apart. The figures and a plot of the memory are
written to `results/`.
"""

from __future__ import annotations

import json
import selectors
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from tests.support.live_server import LiveServer

from .costs import COMPARED, MEASURED, Chart, write_charts
from .processes import pss_bytes
from .systems import launch_upstream
from .workloads import conversation, to_request

STREAMS: Final = 1000
EVENTS: Final = 60
INTERVAL_MS: Final = 200
TIMEOUT: Final = 120
"""Seconds without any event from any stream."""
SAMPLE_SECONDS: Final = 0.5
MEGABYTE: Final = 1_000_000
LAST_CHUNK: Final = b"0\r\n\r\n"
PACE: Final = {"rename": {"top_p": "seed", "max_completion_tokens": "max_tokens"}}
"""Names of the upstream for the time between events and for their number. Responses have no `seed`."""
PROFILES: Final = {"passed": PACE, "translated": {**PACE, "translate_responses": True}}
"""Profiles of the models. The second one lets chats be translated."""


class Kind(NamedTuple):
    """A kind of call, to a model with the messages under a key. `end` is in the end of a complete stream."""

    path: str
    model: str
    key: str
    end: bytes

    def to_body(self) -> bytes:
        """Return the request."""
        body: dict[str, Any] = {"model": self.model, self.key: conversation(2, 380), "stream": True}
        limit = {"max_output_tokens": EVENTS, "store": False} if self.key == "input" else {"max_tokens": EVENTS}
        return json.dumps({**body, "top_p": INTERVAL_MS, **limit}).encode()


CHAT: Final = "/v1/chat/completions"
DONE: Final = b"data: [DONE]"
KINDS: Final = {
    "chat, passed through": Kind(CHAT, "passed", "messages", DONE),
    "chat, translated": Kind(CHAT, "translated", "messages", DONE),
    "response": Kind("/v1/responses", "passed", "input", b"event: response.completed"),
}
COLOURS: Final = {"response": MEASURED, "chat, translated": COMPARED}


@dataclass
class Stream:
    """One stream. `tail` is what was received last."""

    sock: socket.socket
    started_at: float
    first_ms: float = 0.0
    status: bytes = b""
    tail: bytes = b""

    def receive(self) -> bool:
        """Read what has arrived, and return False at the end of the stream."""
        data = self.sock.recv(65_536)
        if not self.status:
            self.first_ms = (time.perf_counter() - self.started_at) * 1000
            self.status = data[:12]
        self.tail = (self.tail + data)[-16_384:]
        return bool(data) and not self.tail.endswith(LAST_CHUNK)

    def is_complete(self, end: bytes) -> bool:
        """Return True for a stream with status 200 whose end was received."""
        return self.status.endswith(b"200") and end in self.tail and self.tail.endswith(LAST_CHUNK)


@dataclass
class Result:
    """What was measured of one kind. `memory` has samples of the worker in bytes, from before the streams on."""

    failed: int
    first_ms: Sequence[float]
    memory: list[int] = field(default_factory=list)

    @property
    def per_stream(self) -> float:
        """Memory of one stream, in kilobytes."""
        return (max(self.memory) - self.memory[0]) / STREAMS / 1000


def main() -> None:
    """Run the streams of each kind, and print a line for each."""
    with tempfile.TemporaryDirectory() as folder:
        upstream = launch_upstream(Path(folder))
        models = Path(folder) / "models.json"
        row = {"kind": "openai", "base_url": upstream.site.upstream, "responses": "translated"}
        models.write_text(json.dumps([{"name": name, **row, "profile": PROFILES[name]} for name in PROFILES]))
        try:
            results = {name: _measure(kind, models) for name, kind in KINDS.items()}
        finally:
            upstream.processes.stop()
    for name, result in results.items():
        before, most = result.memory[0] / MEGABYTE, max(result.memory) / MEGABYTE
        print(
            f"{name}: {result.failed} of {STREAMS} failed, memory {before:.0f} MB before and {most:.0f} MB at most "
            f"({result.per_stream:.1f} kB a stream), first event after {median(result.first_ms):,.0f} ms",
            flush=True,
        )
    figures = {name: result.per_stream for name, result in results.items()}
    write_charts("many-streams", [Chart("many-streams", "Memory of a stream (kB, logarithmic)", figures, COLOURS)])


def _measure(kind: Kind, models: Path) -> Result:
    with LiveServer({"MODELS_FILE": str(models)}) as server:
        (worker,) = server.workers()
        _run(kind, server.port, 10, worker)  # the first calls import what they need
        return _run(kind, server.port, STREAMS, worker)


def _run(kind: Kind, port: int, count: int, worker: int) -> Result:
    """Open `count` streams of a kind and read all of them to their ends."""
    memory = [pss_bytes(worker)]
    request = to_request(kind.to_body(), port, {}, kind.path)
    streams = [_open(port, request) for _ in range(count)]
    _read_all(streams, worker, memory)
    failed = sum(not stream.is_complete(kind.end) for stream in streams)
    for stream in streams:
        stream.sock.close()
    return Result(failed, [stream.first_ms for stream in streams], memory)


def _open(port: int, request: bytes) -> Stream:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(request)
    return Stream(sock, time.perf_counter())


def _read_all(streams: Sequence[Stream], worker: int, memory: list[int]) -> None:
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream.sock, selectors.EVENT_READ, stream)
        sample_at = time.perf_counter()
        while selector.get_map():
            if not (ready := selector.select(TIMEOUT)):
                return
            for key, _ in ready:
                if not key.data.receive():
                    selector.unregister(key.fileobj)
            if time.perf_counter() >= sample_at:
                memory.append(pss_bytes(worker))
                sample_at += SAMPLE_SECONDS


if __name__ == "__main__":
    main()
