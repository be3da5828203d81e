"""`httpx` transports through which the components of a pipeline reach their models.

Haystack's OpenAI components send requests through an `httpx` transport. The transports here end a request when the
client disconnects, even while it waits for the first byte, which `httpx` itself cannot do.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx

from openai_compat.backends.auth.base import USER_TOKEN
from openai_compat.backends.http.client import StreamedResponse, UpstreamClient
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import CallCancelledError, UpstreamError, UpstreamTimeoutError
from openai_compat.core.profiles import ADAPTED_HEADER, from_header, record_adaptations
from openai_compat.core.streams import HEARTBEAT, close_stream
from openai_compat.core.timeouts import Timeouts
from openai_compat.core.types import CallContext
from openai_compat.web.request_context import current_context

from .errors import ClientDisconnected

if TYPE_CHECKING:
    from flask import Flask

MODELS_URL: Final = "http://models.internal/v1"
"""Base URL under which pipelines reach this server's models. The host name is never resolved."""
LAST_EVENT: Final = b"data: [DONE]\n\n"
pipeline_context: ContextVar[CallContext] = ContextVar("pipeline_context")
"""Context of the call for which this thread runs a pipeline."""


@dataclass(frozen=True, slots=True)
class Transports:
    """The transports to this server's models and to other upstreams.

    `has_default` is True if a default upstream serves models that the models file does not name. `without_usage` names
    the models that a streamed call must not ask for usage.
    """

    to_models: httpx.BaseTransport
    to_upstreams: httpx.BaseTransport
    has_default: bool
    without_usage: frozenset[str] = frozenset()


class ModelsTransport(httpx.BaseTransport):
    """Transport that calls the application in this process that serves the models."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        app.before_request(_cancel_with_pipeline)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Call the application and return its response.

        Raises:
            ClientDisconnected
        """
        context = _active_context()
        start: dict[str, Any] = {}

        def start_response(status: str, headers: Any, _error: Any = None, /) -> Callable[[bytes], object]:
            start.update(status_code=int(status.split()[0]), headers=headers)
            return bytes  # PEP 3333's `write` callable, which Flask does not call

        body = self._app.wsgi_app(_to_environ(request, context), start_response)
        _record_adaptations(dict(start["headers"]), context)
        return httpx.Response(**start, stream=_Stream(body, context.cancellation))


class UpstreamTransport(httpx.BaseTransport):
    """Transport that sends requests to the base URL that a component has configured itself."""

    def __init__(self, client: UpstreamClient, timeouts: Timeouts) -> None:
        self._client = client
        self._timeouts = timeouts

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and return the response.

        Raises:
            ClientDisconnected
            httpx.ReadTimeout
            httpx.ConnectError
        """
        context = _active_context()
        headers = {name: value for name, value in request.headers.items() if name not in {"host", "connection"}}
        try:
            reply = self._client.send(
                request.method,
                str(request.url),
                headers=headers,
                timeouts=self._timeouts,
                context=context,
                body=request.read(),
            )
        except CallCancelledError:
            raise ClientDisconnected from None
        except UpstreamTimeoutError as error:
            raise httpx.ReadTimeout(error.message, request=request) from error
        except UpstreamError as error:
            raise httpx.ConnectError(error.message, request=request) from error
        return httpx.Response(reply.status, headers=reply.headers, stream=_Stream(_Blocks(reply), context.cancellation))


def _active_context() -> CallContext:
    """Return the context of the call that this thread serves.

    Threads that a component starts have no context, so a client disconnect does not end their requests.

    Raises:
        ClientDisconnected
    """
    context = pipeline_context.get(CallContext("-"))
    if context.cancellation.is_cancelled:
        raise ClientDisconnected
    return context


class _Blocks(Iterator[bytes]):
    """The blocks of an upstream response, with heartbeats as empty blocks."""

    def __init__(self, reply: StreamedResponse) -> None:
        self._blocks = reply.blocks()
        self.close = reply.close

    def __next__(self) -> bytes:
        block = next(self._blocks)
        return b"" if block is HEARTBEAT else block


class _Stream(httpx.SyncByteStream):
    """A response body that is read as it arrives. Closing it ends the request behind it."""

    def __init__(self, body: Iterable[bytes], cancellation: CancellationToken) -> None:
        self._body = body
        self._blocks = iter(body)
        self._last_block = b""
        self._cancellation = cancellation

    def __iter__(self) -> Iterator[bytes]:
        try:
            for block in self._blocks:
                self._last_block = block
                if self._cancellation.is_cancelled:
                    break
                yield block
        except CallCancelledError:
            pass
        except UpstreamError as error:
            raise httpx.ReadError(error.message) from error
        if self._cancellation.is_cancelled:
            raise ClientDisconnected

    def close(self) -> None:
        """Close the body.

        The OpenAI client stops reading at `[DONE]`, so the body is read once more to let it complete.
        """
        if self._last_block.endswith(LAST_EVENT):
            next(self._blocks, None)
        close_stream(self._body)


def _cancel_with_pipeline() -> None:
    """Cancel the model call that begins in this thread when the pipeline's own call is cancelled."""
    _active_context().cancellation.on_cancel(current_context().cancellation.cancel)


def _record_adaptations(headers: Mapping[str, str], context: CallContext) -> None:
    """Record the adaptations that the model's response reports.

    `stream_options` is left out, because this server and not the client requests the usage.
    """
    adapted = from_header(headers.get(ADAPTED_HEADER, ""))
    record_adaptations({name: how for name, how in adapted.items() if name != "stream_options"}, context.reply_headers)


def _to_environ(request: httpx.Request, context: CallContext) -> dict[str, Any]:
    """Return the WSGI environment (PEP 3333) for a request.

    It carries the request id of the pipeline's call, the caller's credential if upstreams may see it, and the token of
    the user who is signed in at a proxy.
    """
    body = request.read()
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.url.path,
        "QUERY_STRING": request.url.query.decode("ascii"),
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_NAME": "models",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_X_REQUEST_ID": context.request_id,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    credentials = {
        "HTTP_AUTHORIZATION": context.authorization,
        "HTTP_X_FORWARDED_ACCESS_TOKEN": context.sent_header(USER_TOKEN),
    }
    return environ | {name: value for name, value in credentials.items() if value is not None}
