"""The forwarder: every call to another server goes through here, and its faults are translated here, once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any
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

from openai_compat.core.concurrency import ConcurrencyLimiter
from openai_compat.core.errors import (
    OpenAICompatError,
    UpstreamConnectError,
    UpstreamConnectionError,
    UpstreamInvalidResponseError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
)
from openai_compat.core.settings import Settings, Timeouts
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import CallContext

from .messages import UpstreamResponse
from .pool import Deadlines
from .transport import LlhttpAdapter, NotConnectedError, in_chunks

log = logging.getLogger(__name__)


class UpstreamClient:
    """Sends requests to upstreams over one pool of connections, as large as the worker's concurrency."""

    def __init__(self, settings: Settings) -> None:
        self._trusts_environment = settings.upstream_trust_env
        self._verify: bool | str = settings.upstream_ca_bundle or True
        self._adapter = LlhttpAdapter(most_idle=settings.worker_connections)

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
        gate: ConcurrencyLimiter | None = None,
    ) -> StreamedResponse:
        """The reply, whatever its status, once its headers have come. An iterator of unknown length goes in chunks.

        The call holds its place at the `gate` until the reply is closed.

        Raises:
            UpstreamConnectionError, UpstreamTimeoutError, UpstreamBusyError, CallCancelledError
        """
        request = _to_request(method, url, headers, body, body_length)
        patience = Deadlines(timeouts, context.cancellation, context.heartbeat_interval)
        proxies = get_environ_proxies(url) if self._trusts_environment else None
        if gate is not None:
            gate.acquire(context.cancellation)
        try:
            context.cancellation.raise_if_cancelled()
            response = self._adapter.send(request, timeout=patience, verify=self._verify, proxies=proxies)
        except BaseException as error:
            if gate is not None:
                gate.release()
            if isinstance(error, RequestException):
                raise _translated(error, url, context) from error
            raise
        return StreamedResponse(response, url, context, gate)

    def close(self) -> None:
        self._adapter.close()


class StreamedResponse(UpstreamResponse):
    """An upstream's answer. `headers` has all of them, names in lower case."""

    def __init__(
        self, response: Response, url: str, context: CallContext, gate: ConcurrencyLimiter | None = None
    ) -> None:
        self.status = response.status_code
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self._raw: Any = response.raw
        self._url = url
        self._context = context
        self._gate = gate

    def blocks(self) -> Iterator[bytes | Heartbeat]:
        """The iteration is inside the translation: a stream breaks while it is read."""
        block: bytes | None
        while True:
            try:
                block = self._raw.read1()
            except RequestException as error:
                self._leave()
                raise _translated(error, self._url, self._context) from error
            if block == b"":
                self._leave()  # the exchange is over, whether or not its reader closes it
                return
            yield HEARTBEAT if block is None else block

    def read(self) -> bytes:
        return b"".join(block for block in self.blocks() if isinstance(block, bytes))

    def close(self) -> None:
        self._raw.close()
        self._leave()

    def limit_remaining(self, seconds: float) -> None:
        self._raw.limit_remaining(seconds)

    def release(self) -> None:
        """`close`, for a reader that knows by the content that all of it has come: the connection can be kept."""
        close = getattr(self._raw, "close_after_end", self._raw.close)
        close()
        self._leave()

    def _leave(self) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.release()


def _to_request(
    method: str, url: str, headers: Mapping[str, str], body: bytes | Iterator[bytes] | None, length: int | None
) -> PreparedRequest:
    """Filled in by hand: `prepare()` costs more than the rest of the forwarder, and its checks are made elsewhere."""
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
        body = in_chunks(body)
    elif method in {"POST", "PUT", "PATCH"}:
        framed["content-length"] = "0"
    request.headers = framed  # type: ignore[assignment]  # any mapping does, and a dict costs least
    request.body = body  # type: ignore[assignment]  # requests sends iterators too; its stubs say str or bytes
    return request


def _translated(error: RequestException, url: str, context: CallContext) -> OpenAICompatError:
    """Our error for one of `requests`', by its class. What it says of hosts and ports goes to the log alone."""
    if context.cancellation.is_cancelled:
        return context.cancellation.to_error()
    log.warning("upstream %s failed: %s", urlsplit(url).hostname, error)
    if isinstance(error, ConnectTimeout):
        return UpstreamTimeoutError("The upstream could not be reached within the time limit.")
    if isinstance(error, ReadTimeout):
        return UpstreamTimeoutError("The upstream did not answer within the time limit.")
    if isinstance(error, ChunkedEncodingError):
        return UpstreamTruncatedError("The upstream's answer broke off before it was complete.")
    if isinstance(error, ContentDecodingError):
        return UpstreamInvalidResponseError("The upstream's answer could not be decoded.")
    if isinstance(error, SSLError):
        return UpstreamConnectionError("No trusted connection to the upstream could be made.")
    if isinstance(error, NotConnectedError):
        return UpstreamConnectError("The upstream could not be reached.")
    return UpstreamConnectionError("The upstream could not be reached.")
