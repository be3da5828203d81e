"""A worker's calls to the Haystack sidecar, with the test as the sidecar."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from openai_compat.backends.haystack.client import PipelineCall
from openai_compat.backends.haystack.protocol import (
    LineReader,
    delta_from_json,
    delta_to_json,
    error_from_json,
    error_to_json,
    send_line,
)
from openai_compat.core.errors import (
    CallCancelledError,
    InvalidRequestError,
    OpenAICompatError,
    UnsupportedParameterError,
    UpstreamStatusError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
)
from openai_compat.core.settings import Timeouts
from openai_compat.core.streams import HEARTBEAT
from openai_compat.core.types import CallContext, ChatDelta, TokenLogprob, ToolCallDelta, Usage

Sockets = tuple[socket.socket, socket.socket]

FULL_DELTA = ChatDelta(
    "Zoë\n🏃",
    1,
    "stop",
    [ToolCallDelta(0, "{}", "call_1", "look")],
    "no",
    "because",
    [TokenLogprob("a", -0.5, [("b", -1.0)])],
    Usage(1, 2, 3, 4),
    [{"type": "url_citation"}],
)


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    """Yield the worker's socket and the sidecar's."""
    worker, sidecar = socket.socketpair()
    with worker, sidecar:
        yield worker, sidecar


def call(sock: socket.socket, context: CallContext | None = None, **limits: float) -> PipelineCall:
    return PipelineCall(sock, {"op": "chat"}, context or CallContext("test"), Timeouts(**limits))


@pytest.mark.parametrize("delta", [FULL_DELTA, ChatDelta(), ChatDelta("x"), ChatDelta(finish_reason="stop")])
def test_a_delta_survives_the_wire(delta: ChatDelta) -> None:
    assert delta_from_json(json.loads(json.dumps(delta_to_json(delta)))) == delta


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequestError("wrong", param="messages"),
        UnsupportedParameterError("stop", "model", "why"),
        UpstreamTruncatedError("cut"),
        UpstreamStatusError("slow down", upstream_status=429, type_="requests", code="x", headers={"retry-after": "3"}),
    ],
)
def test_an_error_survives_the_wire(error: OpenAICompatError) -> None:
    received = error_from_json(json.loads(json.dumps(error_to_json(error))))
    assert type(received) is type(error)
    assert received.to_envelope() == error.to_envelope()
    if isinstance(error, UpstreamStatusError):
        assert isinstance(received, UpstreamStatusError)
        assert (received.upstream_status, received.headers) == (error.upstream_status, error.headers)


def test_messages_split_across_reads_are_joined(sockets: Sockets) -> None:
    worker, sidecar = sockets
    reader = LineReader(worker)
    sidecar.sendall(b'{"a": 1}\n{"b"')
    assert reader.read() == {"a": 1}
    worker.settimeout(0.01)
    with pytest.raises(TimeoutError):
        reader.read()
    sidecar.sendall(b': 2}\n{"c": 3}\n')
    assert [reader.read(), reader.read()] == [{"b": 2}, {"c": 3}]
    sidecar.close()
    assert reader.read() is None


def test_an_answer_ends_with_its_end_message(sockets: Sockets) -> None:
    worker, sidecar = sockets
    answer = call(worker)
    assert LineReader(sidecar).read() == {"op": "chat"}
    send_line(sidecar, {"content": "x"})
    send_line(sidecar, {"end": True})
    assert list(answer) == [{"content": "x"}]
    assert sidecar.recv(1) == b""


def test_an_answer_without_an_end_message_is_truncated(sockets: Sockets) -> None:
    worker, sidecar = sockets
    answer = call(worker)
    send_line(sidecar, {"content": "x"})
    sidecar.close()
    assert next(answer) == {"content": "x"}
    with pytest.raises(UpstreamTruncatedError):
        next(answer)
    assert list(answer) == []


@pytest.mark.parametrize("limits", [{"first_byte": 0.05}, {"total": 0.05}, {"first_byte": 9.0, "total": 0.05}])
def test_the_first_byte_and_total_timeouts_apply(sockets: Sockets, limits: dict[str, float]) -> None:
    with pytest.raises(UpstreamTimeoutError):
        next(call(sockets[0], **limits))


def test_the_idle_timeout_applies_between_messages(sockets: Sockets) -> None:
    worker, sidecar = sockets
    answer = call(worker, idle=0.05)
    send_line(sidecar, {"content": "x"})
    assert next(answer) == {"content": "x"}
    with pytest.raises(UpstreamTimeoutError):
        next(answer)


def test_heartbeats_are_yielded_until_the_timeout(sockets: Sockets) -> None:
    answer = call(sockets[0], CallContext("test", heartbeat_interval=0.02), first_byte=0.1)
    assert next(answer) is HEARTBEAT
    with pytest.raises(UpstreamTimeoutError):
        list(answer)


def test_a_client_disconnect_closes_the_connection(sockets: Sockets) -> None:
    worker, sidecar = sockets
    context = CallContext("test")
    answer = call(worker, context)
    assert LineReader(sidecar).read() == {"op": "chat"}
    context.cancellation.cancel()
    assert sidecar.recv(1) == b""
    with pytest.raises(CallCancelledError):
        next(answer)
