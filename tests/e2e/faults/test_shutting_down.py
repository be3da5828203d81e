"""Calls that a shutdown cancels. A backend raises the same error as after a client disconnect."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from openai_compat.backends.base import Backend, SupportsChat
from openai_compat.core.errors import CallCancelledError
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest
from tests.e2e.faults.test_streaming_rules import ask, events_of
from tests.support.live_server import LiveServer
from tests.support.waiting import wait_until


class Endless(Backend, SupportsChat):
    """Backend that yields one delta and then works until it is cancelled."""

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        stopped = threading.Event()
        context.cancellation.on_cancel(stopped.set)
        return self._stream(stopped)

    def _stream(self, stopped: threading.Event) -> Iterator[ChatDelta | Heartbeat]:
        Path(self.entry.metadata["started"]).touch()
        yield ChatDelta("word")
        stopped.wait()
        raise CallCancelledError


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "complete"])
def test_a_shutdown_is_reported_as_such_and_not_as_a_disconnect(tmp_path: Path, *, stream: bool) -> None:
    models = tmp_path / "models.json"
    models.write_text(
        json.dumps(
            [{"name": "endless", "kind": f"{__name__}:Endless", "metadata": {"started": str(tmp_path / "started")}}]
        )
    )
    with LiveServer({"MODELS_FILE": str(models), "GRACEFUL_TIMEOUT": "1"}) as server, ThreadPoolExecutor(1) as pool:
        call = pool.submit(ask, server, "endless", stream=stream)
        wait_until((tmp_path / "started").exists, "the call has started")
        server.process.send_signal(signal.SIGTERM)
        answer = call.result()
    error = events_of(answer)[-1]["error"] if stream else answer.json()["error"]
    assert (answer.status_code, error["code"]) == (200 if stream else 503, "server_shutting_down")
