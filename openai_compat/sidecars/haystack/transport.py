"""How the components of a pipeline reach their models: through this server's own ways, not through a socket of theirs.

Haystack's OpenAI components speak through an `httpx` transport. Those here end the call when its client leaves, also
while it waits for the first byte, which `httpx` itself cannot.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import httpx

from openai_compat.backends.auth.base import USER_TOKEN
from openai_compat.backends.http.client import StreamedResponse, UpstreamClient
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import CallCancelledError, UpstreamError, UpstreamTimeoutError
from openai_compat.core.profiles import ADAPTED_HEADER, from_header, record_adaptations
from openai_compat.core.settings import Timeouts
from openai_compat.core.streams import Heartbeat, close_stream
from openai_compat.core.types import CallContext
from openai_compat.web.request_context import current_context

from .errors import ClientDisconnected

if TYPE_CHECKING:
    from flask import Flask

MODELS_URL: Final = "http://models.internal/v1"
"""Where pipelines find this server's models; the name is never looked up."""
LAST_EVENT: Final = b"data: [DONE]\n\n"
current_run: ContextVar[CallContext] = ContextVar("current_run")
"""The call that the pipeline is run for, in the thread that runs it."""


class ModelsTransport(httpx.BaseTransport):
    """Hands requests to the application in this process that serves the models."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        app.before_request(_end_with_the_run)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        run = _run()
        head: dict[str, Any] = {}

        def start_response(status: str, headers: Any, _error: Any = None, /) -> Callable[[bytes], object]:
            head.update(status_code=int(status.split()[0]), headers=headers)
            return bytes  # what PEP 3333 has for older applications; Flask does not call it

        body = self._app.wsgi_app(_to_environ(request, run), start_response)
        _note_adapted(dict(head["headers"]), run)
        return httpx.Response(**head, stream=_Stream(body, run.cancellation))


class UpstreamTransport(httpx.BaseTransport):
    """Sends requests to whatever address a component has of its own."""

    def __init__(self, forwarder: UpstreamClient, timeouts: Timeouts) -> None:
        self._forwarder = forwarder
        self._timeouts = timeouts

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        run = _run()
        headers = {name: value for name, value in request.headers.items() if name not in {"host", "connection"}}
        try:
            reply = self._forwarder.send(
                request.method,
                str(request.url),
                headers=headers,
                timeouts=self._timeouts,
                context=run,
                body=request.read(),
            )
        except CallCancelledError:
            raise ClientDisconnected from None
        except UpstreamTimeoutError as error:
            raise httpx.ReadTimeout(error.message, request=request) from error
        except UpstreamError as error:
            raise httpx.ConnectError(error.message, request=request) from error
        return httpx.Response(reply.status, headers=reply.headers, stream=_Stream(_Blocks(reply), run.cancellation))


def _run() -> CallContext:
    """The run of this thread; a component's own threads have none, and are not ended by a client that leaves."""
    run = current_run.get(CallContext("-"))
    if run.cancellation.is_cancelled:
        raise ClientDisconnected
    return run


class _Blocks(Iterator[bytes]):
    def __init__(self, reply: StreamedResponse) -> None:
        self._blocks = reply.blocks()
        self.close = reply.close

    def __next__(self) -> bytes:
        block = next(self._blocks)
        return b"" if isinstance(block, Heartbeat) else block


class _Stream(httpx.SyncByteStream):
    """A body as it comes; its end on every path is the end of the call behind it."""

    def __init__(self, body: Iterable[bytes], cancellation: CancellationToken) -> None:
        self._body = body
        self._blocks = iter(body)
        self._last = b""
        self._cancellation = cancellation

    def __iter__(self) -> Iterator[bytes]:
        try:
            for block in self._blocks:
                self._last = block
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
        """Clients stop at the last event; the body is over when it has been asked once more."""
        if self._last.endswith(LAST_EVENT):
            next(self._blocks, None)
        close_stream(self._body)


def _end_with_the_run() -> None:
    """The call that begins here, in the run's own thread, ends at once when the run is given up."""
    _run().cancellation.on_cancel(current_context().cancellation.cancel)


def _note_adapted(headers: Mapping[str, str], run: CallContext) -> None:
    """What a model did not get as the client sent it is for the client to know. The usage, which it is asked for here,
    is not.
    """
    adapted = from_header(headers.get(ADAPTED_HEADER, ""))
    record_adaptations({name: what for name, what in adapted.items() if name != "stream_options"}, run.reply_headers)


def _to_environ(request: httpx.Request, run: CallContext) -> dict[str, Any]:
    """PEP 3333's, filled from a request. It carries the id of the call that the pipeline is run for, the caller's
    credential where it may be shown to an upstream, and the token of who is signed in at a proxy.
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
        "HTTP_X_REQUEST_ID": run.request_id,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    known = {"HTTP_AUTHORIZATION": run.authorization, "HTTP_X_FORWARDED_ACCESS_TOKEN": run.sent_header(USER_TOKEN)}
    return environ | {name: value for name, value in known.items() if value is not None}
