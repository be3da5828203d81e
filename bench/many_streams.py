"""1,000 streams at once, `python -m bench.many_streams`.

It prints how many streams of chats and of responses failed, the memory of the worker before and while all of them run,
and the time to the first event. Each kind has a server of its own. The events of a stream are 200 ms apart. The figures
and a plot of the memory are written to `results/`.
"""

from __future__ import annotations

import json
import selectors
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

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
KINDS: Final[Mapping[str, tuple[str, str, bytes]]] = {
    "chat": ("/v1/chat/completions", "messages", b"data: [DONE]"),
    "response": ("/v1/responses", "input", b"event: response.completed"),
}
"""Kind -> path, key of the messages, and what the end of a complete stream has."""
PACE: Final = {"profile": {"rename": {"top_p": "seed", "max_completion_tokens": "max_tokens"}}}
"""Names of the upstream for the time between events and for their number. Responses have no `seed`."""
COLOURS: Final = {"response": MEASURED, "chat": COMPARED}


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
        row = {"name": "model", "kind": "openai", "base_url": upstream.site.upstream, "responses": "translated", **PACE}
        models.write_text(json.dumps([row]))
        try:
            results = {kind: _measure(kind, models) for kind in KINDS}
        finally:
            upstream.processes.stop()
    for kind, result in results.items():
        before, most = result.memory[0] / MEGABYTE, max(result.memory) / MEGABYTE
        print(
            f"{kind}: {result.failed} of {STREAMS} failed, memory {before:.0f} MB before and {most:.0f} MB at most "
            f"({result.per_stream:.1f} kB a stream), first event after {median(result.first_ms):,.0f} ms",
            flush=True,
        )
    figures = {kind: result.per_stream for kind, result in results.items()}
    write_charts("many-streams", [Chart("many-streams", "Memory of a stream (kB, logarithmic)", figures, COLOURS)])


def _measure(kind: str, models: Path) -> Result:
    with LiveServer({"MODELS_FILE": str(models)}) as server:
        (worker,) = server.workers()
        _run(kind, server.port, 10, worker)  # the first calls import what they need
        return _run(kind, server.port, STREAMS, worker)


def _run(kind: str, port: int, count: int, worker: int) -> Result:
    """Open `count` streams of a kind and read all of them to their ends."""
    path, key, end = KINDS[kind]
    body: dict[str, Any] = {"model": "model", key: conversation(2, 380), "stream": True, "top_p": INTERVAL_MS}
    body |= {"max_output_tokens": EVENTS, "store": False} if key == "input" else {"max_tokens": EVENTS}
    memory = [pss_bytes(worker)]
    request = to_request(json.dumps(body).encode(), port, {}, path)
    streams = [_open(port, request) for _ in range(count)]
    _read_all(streams, worker, memory)
    failed = sum(not stream.is_complete(end) for stream in streams)
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
