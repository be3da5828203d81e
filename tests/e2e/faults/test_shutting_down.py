"""A backend that was told to stop says so in the same way whoever wanted it; the client is told the reason."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from openai_compat.backends.base import Backend, SupportsChat
from openai_compat.core.errors import CallCancelledError
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest
from tests.e2e.faults.test_streaming_rules import ask, events_of
from tests.support.live_server import LiveServer


class Endless(Backend, SupportsChat):
    """Says one word, and works until it is told to stop."""

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        stopped = threading.Event()
        context.cancellation.on_cancel(stopped.set)
        return self._speak(stopped)

    def _speak(self, stopped: threading.Event) -> Iterator[ChatDelta | Heartbeat]:
        yield ChatDelta("word")
        stopped.wait()
        raise CallCancelledError


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_the_end_of_the_server_is_not_taken_for_the_clients(tmp_path: Path, *, stream: bool) -> None:
    models = tmp_path / "models.json"
    models.write_text(json.dumps([{"name": "endless", "kind": f"{__name__}:Endless"}]))
    with LiveServer({"MODELS_FILE": str(models), "GRACEFUL_TIMEOUT": "1"}) as server:
        threading.Timer(1, server.process.send_signal, [signal.SIGTERM]).start()
        answer = ask(server, "endless", stream=stream)
    error = events_of(answer)[-1]["error"] if stream else answer.json()["error"]
    assert (answer.status_code, error["code"]) == (200 if stream else 503, "server_shutting_down")
