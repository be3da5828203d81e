"""Cost of protocols that are translated to chat (Responses, Messages), `python -m bench.protocol_costs`.

It prints the worker's CPU time for a call that is translated to a chat and for an event of its stream, beside the same
chat passed through and translated. Events are 50 ms apart, so that each is read on its own. The figures and plots of
them are written to `results/`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.support.live_server import LiveServer

from .costs import COMPARED, MEASURED, Chart, write_charts
from .systems import launch_upstream
from .turns import Call, measure_in_turns
from .workloads import EVENTS, conversation

CHAT: Final = "/v1/chat/completions"
RESPONSES: Final = "/v1/responses"
MESSAGES: Final = "/v1/messages"
CHATS: Final = 2
"""Kinds of calls that the others are compared with."""
CALLS: Final = 400
CALL_ROUNDS: Final = 9
STREAMS: Final = 100
STREAM_ROUNDS: Final = 3
COLOURS: Final = {"response": MEASURED, "message": COMPARED}
END_OF_STREAM: Final = b"0\r\n\r\n"


def main() -> None:
    """Measure calls and streams, and print a line for each kind."""
    with tempfile.TemporaryDirectory() as folder:
        upstream = launch_upstream(Path(folder))
        models = Path(folder) / "models.json"
        models.write_text(json.dumps(list(_rows(upstream.site.upstream))))
        try:
            with LiveServer({"MODELS_FILE": str(models)}) as server:
                calls = measure_in_turns(_calls(server), CALL_ROUNDS, CALLS)
                streams = measure_in_turns(_calls(server, stream=True), STREAM_ROUNDS, STREAMS, STREAMS)
        finally:
            upstream.processes.stop()
    events = {name: cost / EVENTS for name, cost in streams.items()}
    _print_costs("a call", calls)
    _print_costs("an event", events)
    title = "CPU time per streamed event, 100 streams (µs, logarithmic)"
    charts = [
        Chart("protocols-call", "CPU time of a call (µs, logarithmic)", calls, COLOURS),
        Chart("protocols-event", title, events, COLOURS),
    ]
    write_charts("protocols", charts)


def _rows(base_url: str) -> Iterator[dict[str, Any]]:
    """Yield a model whose chats are passed through, and one whose chats are translated."""
    row = {"kind": "openai", "base_url": base_url, "responses": "translated"}
    yield {"name": "passed", **row}
    yield {"name": "translated", **row, "profile": {"translate_responses": True}}


def _calls(server: LiveServer, **options: Any) -> dict[str, Call]:
    """Return the calls of each kind. Those for chat come first."""

    def call(path: str, model: str, **body: Any) -> Call:
        text = json.dumps({"model": model, "temperature": 0.7, "top_p": 0.95, **options, **body}).encode()
        return Call(server.process.pid, server.port, path, text, END_OF_STREAM if options else b"}")

    messages = conversation(2, 380)
    return {
        "chat, passed through": call(CHAT, "passed", messages=messages),
        "chat, translated": call(CHAT, "translated", messages=messages),
        "response": call(RESPONSES, "passed", input=messages, store=False),
        "message": call(MESSAGES, "passed", messages=messages, max_tokens=4096),
    }


def _print_costs(unit: str, costs: dict[str, float]) -> None:
    chats = list(costs.values())[:CHATS]
    for name, cost in costs.items():
        ratios = " and ".join(f"{cost / chat:.2f}" for chat in chats)
        print(f"{name}: {cost:,.1f} µs for {unit} ({ratios} times the chats)", flush=True)


if __name__ == "__main__":
    main()
