"""The forwarder's translation: what goes out, what comes back, and every fault by our own name.

`responses` stands at the adapter's edge; `test_transport.py` has the sockets behind it.
"""

from __future__ import annotations

import inspect
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import responses
from requests import exceptions

from openai_compat.backends.base import Backend
from openai_compat.backends.external.backend import ExternalBackend, ExternalOptions
from openai_compat.backends.http.client import StreamedResponse, UpstreamClient
from openai_compat.backends.openai.backend import OpenAIBackend, OpenAIOptions
from openai_compat.backends.resources import BackendResources
from openai_compat.core.concurrency import ConcurrencyLimiter
from openai_compat.core.errors import (
    CallCancelledError,
    OpenAICompatError,
    OverloadedError,
    UpstreamConnectionError,
    UpstreamInvalidResponseError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
)
from openai_compat.core.settings import ModelConfig, Settings, Timeouts
from openai_compat.core.types import CallContext, ChatRequest
from tests.support.raw_server import RawServer, read_request

URL = "http://user:hunter2@upstream.test/v1/chat/completions"


@pytest.fixture
def mocked() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(target="openai_compat.backends.http.transport.LlhttpAdapter.send") as mock:
        yield mock


def send(context: CallContext | None = None, **options: object) -> StreamedResponse:
    arguments = {"headers": {"x-y": "z"}, "timeouts": Timeouts(), "context": context or CallContext("req_1"), **options}
    return UpstreamClient(Settings()).send("POST", URL, **arguments)  # type: ignore[arg-type]


def test_the_bytes_go_out_and_the_bytes_come_back(mocked: responses.RequestsMock) -> None:
    mocked.post(URL, body=b'{"a": 1}', status=418, headers={"X-Request-Id": "up_1"})
    reply = send(body=b'{"b":2}')
    assert (reply.status, reply.read(), reply.headers["x-request-id"]) == (418, b'{"a": 1}', "up_1")
    sent = mocked.calls[0].request
    assert sent.body == b'{"b":2}'
    assert {**sent.headers} == {"x-y": "z", "accept-encoding": "identity", "content-length": "7"}


def test_a_body_of_unknown_length_goes_in_chunks(mocked: responses.RequestsMock) -> None:
    mocked.post(URL, body=b"")
    send(body=iter([b"abc", b"", b"de"]))
    sent = mocked.calls[0].request
    assert sent.headers["transfer-encoding"] == "chunked"
    assert b"".join(sent.body) == b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"  # type: ignore[arg-type]


def test_a_call_has_its_place_at_the_gate_until_it_is_over(mocked: responses.RequestsMock) -> None:
    gate = ConcurrencyLimiter(1, 0, 0)
    mocked.post(URL, body=b"{}")
    for _ in range(2):
        assert send(gate=gate).read() == b"{}"  # to its end: nobody has to close it
    reply = send(gate=gate)
    with pytest.raises(OverloadedError):
        send(gate=gate)
    reply.close()
    reply.close()  # twice, and the place is given back once
    held = send(gate=gate)
    with pytest.raises(OverloadedError):
        send(gate=gate)
    held.release()
    send(gate=gate).close()


def test_a_call_that_fails_gives_its_place_back(mocked: responses.RequestsMock) -> None:
    gate = ConcurrencyLimiter(1, 0, 0)
    mocked.post(URL, body=exceptions.ConnectionError())
    for _ in range(2):
        with pytest.raises(UpstreamConnectionError):
            send(gate=gate)


FAULTS: dict[type[requests.RequestException], type[OpenAICompatError]] = {
    exceptions.ConnectTimeout: UpstreamTimeoutError,
    exceptions.ReadTimeout: UpstreamTimeoutError,
    exceptions.ConnectionError: UpstreamConnectionError,
    exceptions.SSLError: UpstreamConnectionError,
    exceptions.ProxyError: UpstreamConnectionError,
    exceptions.ChunkedEncodingError: UpstreamTruncatedError,
    exceptions.ContentDecodingError: UpstreamInvalidResponseError,
    exceptions.InvalidURL: UpstreamConnectionError,
    exceptions.InvalidHeader: UpstreamConnectionError,
}


@pytest.mark.parametrize(("fault", "expected"), FAULTS.items(), ids=lambda kind: kind.__name__)
def test_every_fault_has_our_name_and_shows_no_secret(
    fault: type[requests.RequestException], expected: type[OpenAICompatError], mocked: responses.RequestsMock
) -> None:
    mocked.post(URL, body=fault("cannot reach hunter2@10.0.0.7"))
    with pytest.raises(expected) as caught:
        send()
    assert "hunter2" not in caught.value.message
    assert "10.0.0.7" not in caught.value.message


def test_no_exception_of_requests_is_left_untranslated(mocked: responses.RequestsMock) -> None:
    for fault in vars(exceptions).values():
        if not (inspect.isclass(fault) and issubclass(fault, requests.RequestException)):
            continue
        if fault is exceptions.JSONDecodeError:
            continue  # no reply is decoded by requests here
        mocked.upsert(responses.POST, URL, body=fault("x"))
        with pytest.raises(OpenAICompatError):
            send()


def test_a_call_that_was_cancelled_is_not_sent(mocked: responses.RequestsMock) -> None:
    context = CallContext("req_1")
    context.cancellation.cancel()
    with pytest.raises(CallCancelledError):
        send(context)


def test_a_fault_after_the_cancellation_is_the_cancellation(mocked: responses.RequestsMock) -> None:
    context = CallContext("req_1")

    def hang_up(_request: object) -> tuple[int, dict[str, str], bytes]:
        context.cancellation.cancel()
        raise exceptions.ConnectionError("broken")

    mocked.add_callback(responses.POST, URL, callback=hang_up)
    with pytest.raises(CallCancelledError):
        send(context)


BASIC = "authorization: Basic dXNlcjpodW50ZXIy"
KINDS: list[tuple[type[Backend], Any]] = [(OpenAIBackend, OpenAIOptions()), (ExternalBackend, ExternalOptions())]


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=["openai", "external"])
@pytest.mark.parametrize(("api_key", "expected"), [(None, BASIC), ("k", "authorization: Bearer k")])
def test_the_credential_of_a_base_url_goes_out_unless_there_is_a_key(
    kind: type[Any], options: Any, api_key: str | None, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    heads: list[str] = []

    def refuses(client: socket.socket) -> None:
        heads.append(read_request(client).decode().partition("\r\n\r\n")[0])
        client.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")

    settings = Settings()
    forwarder = UpstreamClient(settings)
    with RawServer(refuses) as server:
        url = server.url.replace("//", "//user:hunter2@")
        entry = ModelConfig("m", "any", base_url=url, api_key=api_key)
        backend = kind(entry, options, BackendResources(settings, forwarder))
        context = CallContext("req_1", authorization="Bearer the-client's-own")
        with pytest.raises(OpenAICompatError) as caught:
            backend.chat(ChatRequest("m", [{"role": "user", "content": "hi"}], {}, is_streamed=False), context)
    forwarder.close()
    assert [line for line in heads[0].split("\r\n") if line.lower().startswith("authorization")] == [expected]
    assert "hunter2" not in heads[0] + caplog.text + str(caught.value)
