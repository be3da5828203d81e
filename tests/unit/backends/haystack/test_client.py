"""A worker's end of a call to the process of the pipelines, with that process played by the test."""

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

WHOLE = ChatDelta(
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
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def call(sock: socket.socket, context: CallContext | None = None, **limits: float) -> PipelineCall:
    return PipelineCall(sock, {"op": "chat"}, context or CallContext("test"), Timeouts(**limits))


@pytest.mark.parametrize("delta", [WHOLE, ChatDelta(), ChatDelta("x"), ChatDelta(finish_reason="stop")])
def test_a_delta_is_the_same_on_the_other_side(delta: ChatDelta) -> None:
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
def test_an_error_is_the_same_on_the_other_side(error: OpenAICompatError) -> None:
    told = error_from_json(json.loads(json.dumps(error_to_json(error))))
    assert type(told) is type(error)
    assert told.to_envelope() == error.to_envelope()
    if isinstance(error, UpstreamStatusError):
        assert isinstance(told, UpstreamStatusError)
        assert (told.upstream_status, told.headers) == (error.upstream_status, error.headers)


def test_messages_are_read_however_they_are_cut(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    reader = LineReader(ours)
    theirs.sendall(b'{"a": 1}\n{"b"')
    assert reader.read() == {"a": 1}
    ours.settimeout(0.01)
    with pytest.raises(TimeoutError):
        reader.read()
    theirs.sendall(b': 2}\n{"c": 3}\n')
    assert [reader.read(), reader.read()] == [{"b": 2}, {"c": 3}]
    theirs.close()
    assert reader.read() is None


def test_an_answer_ends_with_its_end(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    answer = call(ours)
    assert LineReader(theirs).read() == {"op": "chat"}
    send_line(theirs, {"content": "x"})
    send_line(theirs, {"end": True})
    assert list(answer) == [{"content": "x"}]
    assert theirs.recv(1) == b""


def test_an_answer_without_its_end_was_cut(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    answer = call(ours)
    send_line(theirs, {"content": "x"})
    theirs.close()
    assert next(answer) == {"content": "x"}
    with pytest.raises(UpstreamTruncatedError):
        next(answer)
    assert list(answer) == []


@pytest.mark.parametrize("limits", [{"first_byte": 0.05}, {"total": 0.05}, {"first_byte": 9.0, "total": 0.05}])
def test_nothing_is_waited_for_beyond_its_limit(
    ends: tuple[socket.socket, socket.socket], limits: dict[str, float]
) -> None:
    with pytest.raises(UpstreamTimeoutError):
        next(call(ends[0], **limits))


def test_a_pause_has_a_limit_of_its_own(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    answer = call(ours, idle=0.05)
    send_line(theirs, {"content": "x"})
    assert next(answer) == {"content": "x"}
    with pytest.raises(UpstreamTimeoutError):
        next(answer)


def test_silence_is_told_up_to_the_limit(ends: tuple[socket.socket, socket.socket]) -> None:
    answer = call(ends[0], CallContext("test", heartbeat_interval=0.02), first_byte=0.1)
    assert next(answer) is HEARTBEAT
    with pytest.raises(UpstreamTimeoutError):
        list(answer)


def test_a_client_that_leaves_hangs_up(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    context = CallContext("test")
    answer = call(ours, context)
    assert LineReader(theirs).read() == {"op": "chat"}
    context.cancellation.cancel()
    assert theirs.recv(1) == b""
    with pytest.raises(CallCancelledError):
        next(answer)
