"""Requests, responses, concurrency slots and translated failures of the HTTP client for upstreams.

`responses` replaces the transport adapter, whose own tests use real sockets.
"""

from __future__ import annotations

import inspect
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import responses
from requests import exceptions

from openai_compat.backends.base import Backend
from openai_compat.backends.external.backend import ExternalBackend, ExternalOptions
from openai_compat.backends.http.client import StreamedResponse, UpstreamClient
from openai_compat.backends.http.transport import NotConnectedError
from openai_compat.backends.openai.backend import OpenAIBackend, OpenAIOptions
from openai_compat.backends.resources import BackendResources
from openai_compat.core.cancellation import CancellationToken
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
from openai_compat.core.observation import AttemptRecord
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.timeouts import Timeouts
from openai_compat.core.types import CallContext, ChatRequest
from tests.support.raw_server import RawServer, answer_with, read_request

from .helpers import UNFINISHED

URL = "http://user:hunter2@upstream.test/v1/chat/completions"


@pytest.fixture
def mocked() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(target="openai_compat.backends.http.transport.LlhttpAdapter.send") as mock:
        yield mock


def send(context: CallContext | None = None, **options: object) -> StreamedResponse:
    arguments = {"headers": {"x-y": "z"}, "timeouts": Timeouts(), "context": context or CallContext("req_1"), **options}
    return UpstreamClient(Settings()).send("POST", URL, **arguments)  # type: ignore[arg-type]


def test_requests_and_responses_are_passed_on_as_bytes(mocked: responses.RequestsMock) -> None:
    mocked.post(URL, body=b'{"a": 1}', status=418, headers={"X-Request-Id": "up_1"})
    response = send(body=b'{"b":2}')
    assert (response.status, response.read(), response.headers["x-request-id"]) == (418, b'{"a": 1}', "up_1")
    sent = mocked.calls[0].request
    assert sent.body == b'{"b":2}'
    assert {**sent.headers} == {"x-y": "z", "accept-encoding": "identity", "content-length": "7"}


def test_a_body_of_unknown_length_is_sent_chunked(mocked: responses.RequestsMock) -> None:
    mocked.post(URL, body=b"")
    send(body=iter([b"abc", b"", b"de"]))
    sent = mocked.calls[0].request
    assert sent.headers["transfer-encoding"] == "chunked"
    assert b"".join(sent.body) == b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"  # type: ignore[arg-type]


def test_a_call_holds_its_slot_until_the_response_is_read_or_closed(mocked: responses.RequestsMock) -> None:
    limiter = ConcurrencyLimiter(1, 0, 0)
    mocked.post(URL, body=b"{}")
    for _ in range(2):
        assert send(limiter=limiter).read() == b"{}"
    response = send(limiter=limiter)
    with pytest.raises(OverloadedError):
        send(limiter=limiter)
    response.close()
    response.close()  # the second `close` must not release another slot
    send(limiter=limiter)
    with pytest.raises(OverloadedError):
        send(limiter=limiter)


def test_a_released_response_releases_its_slot_and_keeps_its_connection() -> None:
    limiter = ConcurrencyLimiter(1, 0, 0)
    client = UpstreamClient(Settings())

    def script(sock: socket.socket) -> None:
        for _ in range(2):
            read_request(sock)
            sock.sendall(UNFINISHED)
            sock.sendall(b"0\r\n\r\n")

    with RawServer(script) as server:
        for _ in range(2):
            response = client.send(
                "GET", server.url, headers={}, timeouts=Timeouts(), context=CallContext("req_1"), limiter=limiter
            )
            assert next(response.blocks()) == b"hel"
            response.release()
        assert server.connections == 1
    client.close()


def test_a_failed_call_releases_its_slot(mocked: responses.RequestsMock) -> None:
    limiter = ConcurrencyLimiter(1, 0, 0)
    mocked.post(URL, body=exceptions.ConnectionError())
    for _ in range(2):
        with pytest.raises(UpstreamConnectionError):
            send(limiter=limiter)


ERRORS: dict[type[requests.RequestException], type[OpenAICompatError]] = {
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


@pytest.mark.parametrize(("error", "expected"), ERRORS.items(), ids=lambda kind: kind.__name__)
def test_errors_of_requests_are_translated_and_show_no_secret(
    error: type[requests.RequestException], expected: type[OpenAICompatError], mocked: responses.RequestsMock
) -> None:
    mocked.post(URL, body=error("cannot reach hunter2@10.0.0.7"))
    with pytest.raises(expected) as caught:
        send()
    assert "hunter2" not in caught.value.message
    assert "10.0.0.7" not in caught.value.message


def test_every_exception_of_requests_is_translated(mocked: responses.RequestsMock) -> None:
    for error in vars(exceptions).values():
        if not (inspect.isclass(error) and issubclass(error, requests.RequestException)):
            continue
        if error is exceptions.JSONDecodeError:
            continue  # requests decodes no JSON here
        mocked.upsert(responses.POST, URL, body=error("x"))
        with pytest.raises(OpenAICompatError):
            send()


def test_a_cancelled_call_is_not_sent(mocked: responses.RequestsMock) -> None:
    context = CallContext("req_1")
    context.cancellation.cancel()
    with pytest.raises(CallCancelledError):
        send(context)


def attempt_cancelled_by(mocked: responses.RequestsMock, error: Exception) -> AttemptRecord:
    context = CallContext("req_1", attempts=[AttemptRecord("m", 0.0)])

    def cancel_and_fail(_request: object) -> tuple[int, dict[str, str], bytes]:
        context.cancellation.cancel()
        raise error

    mocked.add_callback(responses.POST, URL, callback=cancel_and_fail)
    with pytest.raises(CallCancelledError):
        send(context)
    return context.attempts[0]


@pytest.mark.parametrize(
    ("error", "is_sent"),
    [
        (CallCancelledError(), False),
        (exceptions.ConnectTimeout(), False),
        (NotConnectedError(), False),
        (exceptions.ReadTimeout(), True),
        (exceptions.ConnectionError(), True),
    ],
)
def test_an_attempt_that_was_cancelled_knows_whether_its_request_was_sent(
    mocked: responses.RequestsMock, error: Exception, is_sent: bool
) -> None:
    assert attempt_cancelled_by(mocked, error).is_sent is is_sent


def test_an_attempt_that_was_cancelled_in_the_queue_was_not_sent() -> None:
    limiter = ConcurrencyLimiter(1, 1, 60)
    limiter.acquire(CancellationToken())
    context = CallContext("req_1", attempts=[AttemptRecord("m", 0.0)])
    threading.Timer(0.1, context.cancellation.cancel).start()
    with pytest.raises(CallCancelledError):
        send(context, limiter=limiter)
    assert not context.attempts[0].is_sent


def test_an_error_after_the_cancellation_is_reported_as_the_cancellation(mocked: responses.RequestsMock) -> None:
    context = CallContext("req_1")

    def cancel_and_fail(_request: object) -> tuple[int, dict[str, str], bytes]:
        context.cancellation.cancel()
        raise exceptions.ConnectionError("broken")

    mocked.add_callback(responses.POST, URL, callback=cancel_and_fail)
    with pytest.raises(CallCancelledError):
        send(context)


BASIC = "authorization: Basic dXNlcjpodW50ZXIy"
KINDS: list[tuple[type[Backend], Any]] = [(OpenAIBackend, OpenAIOptions()), (ExternalBackend, ExternalOptions())]


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=["openai", "external"])
@pytest.mark.parametrize(("api_key", "expected"), [(None, BASIC), ("k", "authorization: Bearer k")])
def test_the_credential_of_a_base_url_is_sent_unless_there_is_a_key(
    kind: type[Any], options: Any, api_key: str | None, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    header_blocks: list[str] = []

    def refuses(client: socket.socket) -> None:
        header_blocks.append(read_request(client).decode().partition("\r\n\r\n")[0])
        client.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")

    settings = Settings()
    http_client = UpstreamClient(settings)
    with RawServer(refuses) as server:
        url = server.url.replace("//", "//user:hunter2@")
        entry = ModelConfig("m", "any", base_url=url, api_key=api_key)
        backend = kind(entry, options, BackendResources(settings, http_client))
        context = CallContext("req_1", authorization="Bearer the-client's-own")
        with pytest.raises(OpenAICompatError) as caught:
            backend.chat(ChatRequest("m", [{"role": "user", "content": "hi"}], {}, is_streamed=False), context)
    http_client.close()
    lines = header_blocks[0].split("\r\n")
    assert [line for line in lines if line.lower().startswith("authorization")] == [expected]
    assert "hunter2" not in header_blocks[0] + caplog.text + str(caught.value)


def test_the_timeouts_of_the_context_replace_those_of_the_model(mocked: responses.RequestsMock) -> None:
    mocked.post(URL, body=b"{}")
    context = CallContext("req_1", timeouts=Timeouts(first_byte=1))
    send(context)
    assert mocked.calls[0].request.req_kwargs["timeout"].timeouts is context.timeouts  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["authorization", "api-key", "x-api-key", "x-forwarded-access-token"])
@pytest.mark.parametrize("status", [200, 500])
def test_a_sent_credential_is_masked_in_headers_and_in_errors(
    mocked: responses.RequestsMock, name: str, status: int
) -> None:
    """Tokens that are fetched or belong to the caller are in no configuration."""
    mocked.post(
        URL, body="the token was token-of-the-hour", status=status, headers={"X-Request-Id": "token-of-the-hour"}
    )
    response = send(headers={name: "Bearer token-of-the-hour"})
    assert response.headers["x-request-id"] == "***"
    assert response.read() == (b"the token was token-of-the-hour" if status == 200 else b"the token was ***")


@pytest.mark.parametrize(("status", "limit"), [(200, 2_000_000), (500, 1_048_576)])
def test_a_body_above_the_limit_is_an_error_and_closes_the_connection(status: int, limit: int) -> None:
    is_closed = threading.Event()

    def script(client: socket.socket) -> None:
        read_request(client)
        client.sendall(b"HTTP/1.1 %d X\r\nContent-Length: 100000000\r\n\r\n" % status)
        try:
            client.sendall(bytes(100_000_000))
        except ConnectionError:
            is_closed.set()

    client = UpstreamClient(Settings(max_reply_bytes=2_000_000))
    with RawServer(script) as server:
        response = client.send("GET", server.url, headers={}, timeouts=Timeouts(), context=CallContext("req_1"))
        with pytest.raises(UpstreamInvalidResponseError, match=f"larger than {limit} bytes"):
            response.read()
        assert is_closed.wait(20)


def test_the_blocks_of_a_complete_answer_are_limited_and_those_of_a_stream_are_not() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + bytes(200_000)
    client = UpstreamClient(Settings(max_reply_bytes=100_000))
    with RawServer(answer_with(answer)) as server:
        for is_whole in (False, True):
            context = CallContext("req_1", is_whole=is_whole)
            response = client.send("GET", server.url, headers={}, timeouts=Timeouts(), context=context)
            if not is_whole:
                assert sum(len(block) for block in response.blocks() if isinstance(block, bytes)) == 200_000
                continue
            with pytest.raises(UpstreamInvalidResponseError):
                list(response.blocks())


def test_what_arrived_of_an_error_is_masked_before_the_failure_is_raised() -> None:
    head = b"HTTP/1.1 500 X\r\nContent-Length: 100\r\n\r\n"
    with RawServer(answer_with(head + b"the key sk-12345 is")) as server:
        headers = {"authorization": "Bearer sk-12345"}
        response = UpstreamClient(Settings()).send(
            "GET", server.url, headers=headers, timeouts=Timeouts(), context=CallContext("req_1")
        )
        blocks = response.blocks()
        assert next(blocks) == b"the key *** is"
        with pytest.raises(UpstreamTruncatedError):
            next(blocks)
