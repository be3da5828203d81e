"""HTTP client for upstreams. It translates transport failures into this package's errors."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from requests import PreparedRequest, RequestException, Response
from requests.exceptions import (
    ChunkedEncodingError,
    ConnectTimeout,
    ContentDecodingError,
    ReadTimeout,
    SSLError,
)
from requests.utils import get_environ_proxies

from openai_compat.core.concurrency import Slots
from openai_compat.core.errors import (
    OpenAICompatError,
    UpstreamConnectError,
    UpstreamConnectionError,
    UpstreamError,
    UpstreamInvalidResponseError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
)
from openai_compat.core.redaction import NOTHING_SECRET, Redactor
from openai_compat.core.settings import Settings
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.timeouts import Timeouts
from openai_compat.core.types import CallContext

from .connection import Deadlines
from .messages import UpstreamResponse, limit_size, read_whole
from .transport import ConnectionCounts, LlhttpAdapter, NotConnectedError, NotHTTPError, encode_chunked

log = logging.getLogger(__name__)

ERRORS_BEFORE_SENDING: Final = (OpenAICompatError, ConnectTimeout, NotConnectedError, SSLError)
"""Errors of a request that was not sent: cancelled, without a slot, or without a connection.

A cancellation after the sending aborts the connection, which is a `RequestException`.
"""

MAX_ERROR_BYTES: Final = 1024 * 1024
"""The largest body of a response of status 400 or more."""
USER_TOKEN: Final = "x-forwarded-access-token"  # noqa: S105 - a header's name


class UpstreamClient:
    """Sends requests over one connection pool, which is as large as the worker's concurrency."""

    def __init__(self, settings: Settings) -> None:
        self._trusts_environment = settings.upstream_trust_env
        self._verify: bool | str = settings.upstream_ca_bundle or True
        self._max_reply_bytes = settings.max_reply_bytes
        self._adapter = LlhttpAdapter(max_idle=settings.worker_connections)

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        timeouts: Timeouts,
        context: CallContext,
        body: bytes | Iterator[bytes] | None = None,
        body_length: int | None = None,
        is_repeatable: bool = True,
        limiter: Slots | None = None,
        gate: Slots | None = None,
        redactor: Redactor = NOTHING_SECRET,
    ) -> StreamedResponse:
        """Send a request and return the response, of any status, as soon as its headers have arrived.

        An iterator as `body` is sent with chunked transfer encoding unless `body_length` is given. A body that is not
        `is_repeatable` is sent once, over a new connection. The call holds its slot of the `limiter` until the response
        is closed or read to its end. The timeouts of the `context` replace `timeouts`. `redactor` masks the secrets of
        the configuration in the response, in addition to the credential that is sent.
        `gate` is the former name of `limiter`.

        Raises:
            UpstreamConnectError: The upstream could not be reached, so nothing was sent.
            UpstreamConnectionError: The connection failed before a response arrived.
            UpstreamInvalidResponseError: The head of the response is not HTTP, or too large.
            UpstreamTimeoutError: The connect, first-byte or total timeout expired.
            UpstreamBusyError: The limiter has no slot.
            CallCancelledError: The call was cancelled.
        """
        limiter = limiter or gate
        request = _build_request(method, url, headers, body, body_length)
        resends = context.resends if is_repeatable or body is None else None
        deadlines = Deadlines(context.timeouts or timeouts, context.cancellation, context.heartbeat_interval, resends)
        response = self._send_in_slot(request, url, deadlines, context, limiter)
        get = headers.get
        redactor = _including(redactor, get("authorization"), get("api-key"), get("x-api-key"), get(USER_TOKEN))
        return StreamedResponse(response, url, context, limiter, self._max_reply_bytes, redactor)

    def _send_in_slot(
        self, request: PreparedRequest, url: str, deadlines: Deadlines, context: CallContext, limiter: Slots | None
    ) -> Response:
        """Send a request once the limiter has a slot, which is released if there is no response."""
        proxies = get_environ_proxies(url) if self._trusts_environment else None
        has_slot = False
        try:
            if limiter is not None:
                limiter.acquire(context.cancellation)
                has_slot = True
            context.cancellation.raise_if_cancelled()
            return self._adapter.send(request, timeout=deadlines, verify=self._verify, proxies=proxies)
        except BaseException as error:
            if limiter is not None and has_slot:
                limiter.release()
            if isinstance(error, ERRORS_BEFORE_SENDING):
                context.note_unsent()
            if isinstance(error, RequestException):
                raise _translate_error(error, url, context) from error
            raise

    def connection_counts(self) -> ConnectionCounts:
        """Return the numbers of connections that are idle, and that were opened and reused so far."""
        return self._adapter.connection_counts()

    def close(self) -> None:
        """Close the idle connections."""
        self._adapter.close()


class StreamedResponse(UpstreamResponse):
    """An upstream's response with all of its headers, whose body is read as it arrives.

    The credentials of the request are masked in its headers and in the body of an error, for some upstreams repeat
    them. The body of an error is read completely before its first block is returned.
    """

    def __init__(
        self,
        response: Response,
        url: str,
        context: CallContext,
        limiter: Slots | None = None,
        max_bytes: int = UpstreamResponse.max_bytes,
        redactor: Redactor = NOTHING_SECRET,
    ) -> None:
        self.status = response.status_code
        headers: Mapping[str, str] = response.headers
        if not isinstance(headers, dict):  # another transport's mapping, whose names may have capitals
            headers = {name.lower(): value for name, value in headers.items()}
        self.headers = redactor.mask_headers(headers)
        self.max_bytes = max_bytes if self.status < 400 else min(max_bytes, MAX_ERROR_BYTES)
        self._redactor = redactor
        self._raw: Any = response.raw
        self._url = url
        self._context = context
        self._limiter = limiter

    def blocks(self) -> Iterator[bytes | Heartbeat]:
        if self.status >= 400:
            return self._masked_blocks()
        if self._context.is_whole:
            return self._limited_blocks()
        return self._blocks()

    def read(self) -> bytes:
        blocks = self._masked_blocks() if self.status >= 400 else self._blocks()
        return read_whole(blocks, self.max_bytes, self.close)

    def _limited_blocks(self) -> Iterator[bytes | Heartbeat]:
        return limit_size(self._blocks(), self.max_bytes, self.close)

    def _blocks(self) -> Iterator[bytes | Heartbeat]:
        block: bytes | None
        while True:
            try:
                block = self._raw.read1()
            except RequestException as error:
                self._release_slot()
                raise _translate_error(error, self._url, self._context) from error
            if block == b"":
                self._release_slot()  # the exchange has ended, even if the reader never calls `close`
                return
            yield HEARTBEAT if block is None else block

    def _masked_blocks(self) -> Iterator[bytes | Heartbeat]:
        """Yield heartbeats and then the body as one block, or what arrived of it before an error is raised."""
        body = []
        try:
            for block in self._limited_blocks():
                if isinstance(block, bytes):
                    body.append(block)
                else:
                    yield block
        except UpstreamError:
            if body:
                yield self.redact(b"".join(body))
            raise
        if body:
            yield self.redact(b"".join(body))

    def redact(self, data: bytes) -> bytes:
        return self._redactor.mask_bytes(data)

    def close(self) -> None:
        self._raw.close()
        self._release_slot()

    def limit_remaining(self, seconds: float) -> None:
        self._raw.limit_remaining(seconds)

    def release(self) -> None:
        self._raw.release()
        self._release_slot()

    def _release_slot(self) -> None:
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.release()


@lru_cache(maxsize=1024)
def _including(redactor: Redactor, *credentials: str | None) -> Redactor:
    """Return the redactor for further secrets. Cached, as most calls send the same ones."""
    return redactor.including(credentials)


def _build_request(
    method: str, url: str, headers: Mapping[str, str], body: bytes | Iterator[bytes] | None, length: int | None
) -> PreparedRequest:
    """Fill in a request by hand. `prepare()` costs more than the rest of the client, and its checks are made elsewhere.

    Responses are requested without compression.
    """
    request = PreparedRequest()
    request.method = method
    request.url = url
    framed = {**headers, "accept-encoding": "identity"}
    if isinstance(body, bytes):
        framed["content-length"] = str(len(body))
    elif body is not None and length is not None:
        framed["content-length"] = str(length)
    elif body is not None:
        framed["transfer-encoding"] = "chunked"
        body = encode_chunked(body)
    elif method in {"POST", "PUT", "PATCH"}:
        framed["content-length"] = "0"
    request.headers = framed  # type: ignore[assignment]  # any mapping works, and a dict is the fastest
    request.body = body  # type: ignore[assignment]  # requests sends iterators too; its stubs say str or bytes
    return request


def _translate_error(error: RequestException, url: str, context: CallContext) -> OpenAICompatError:
    """Return the error for an exception of `requests`, by its class. Host and port appear in the log only."""
    if context.cancellation.is_cancelled:
        return context.cancellation.to_error()
    log.warning("upstream %s failed: %s", urlsplit(url).hostname, error)
    if isinstance(error, ConnectTimeout):
        return UpstreamTimeoutError("The upstream could not be reached within the time limit.")
    if isinstance(error, ReadTimeout):
        return UpstreamTimeoutError("The upstream did not respond within the time limit.")
    if isinstance(error, ChunkedEncodingError):
        return UpstreamTruncatedError("The upstream's response ended before it was complete.")
    if isinstance(error, ContentDecodingError):
        return UpstreamInvalidResponseError("The upstream's response could not be decoded.")
    if isinstance(error, NotHTTPError):
        return UpstreamInvalidResponseError("The head of the upstream's response is not HTTP, or too large.")
    if isinstance(error, SSLError):
        return UpstreamConnectionError("The TLS connection to the upstream failed.")
    if isinstance(error, NotConnectedError):
        return UpstreamConnectError("The upstream could not be reached.")
    return UpstreamConnectionError("The upstream could not be reached.")
