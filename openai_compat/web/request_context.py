"""One HTTP request from its first byte in to its last byte out: its id, its client's presence, its log line."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import count
from secrets import token_hex
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, Request, Response, request

from openai_compat.core import logging as logs
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.concurrency import ConcurrencyLimiter
from openai_compat.core.settings import Settings
from openai_compat.core.types import CallContext, Usage

from .body_logging import log_request_body
from .client_monitor import DisconnectMonitor

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = logging.getLogger(__name__)

CONTEXT_KEY: Final = "openai_compat.call"
"""Where the request's environment has its `RequestContext`."""
HEALTH_CHECKS: Final = frozenset({"GET /healthz", "GET /readyz", "GET /api/v1/healthcheck"})
"""Asked every few seconds by whoever watches the server: their lines would bury all others."""
OPENAI_VERSION: Final = "2020-10-01"
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)

# The headers that may travel on to an upstream. Everything else stays here: cookies, what proxies in front of us say
# of the user, credentials meant for this server.
FORWARDED_HEADERS = frozenset(
    {
        "HTTP_USER_AGENT", "HTTP_ACCEPT", "HTTP_ACCEPT_LANGUAGE", "HTTP_IDEMPOTENCY_KEY", "HTTP_X_CLIENT_REQUEST_ID",
        "HTTP_TRACEPARENT", "HTTP_TRACESTATE",
    }
)  # fmt: skip
# With what asks for a file, and with nothing else: half a chat completion, or none, is no answer.
_FORWARDED_WITH_GET = FORWARDED_HEADERS | {"HTTP_RANGE", "HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE"}
_FORWARDED_PREFIXES = ("HTTP_OPENAI_", "HTTP_X_STAINLESS_")


# An id must be unlike every other; it is no secret. Asking the system for randomness each time costs more.
_PROCESS = token_hex(10)
_counter = count(1)


class RequestContext:
    """The request that is being served. `model`, `usage` and the rest are noted on the way, for the log;
    `reply_headers` are added to the answer, whatever it will be.

    `release_slot` gives back the place that it had to wait for, where places are counted.
    """

    __slots__ = (
        "_descriptor",
        "_place",
        "_settings",
        "_started",
        "_watch",
        "authorization",
        "cancellation",
        "is_finished",
        "is_streamed",
        "log_fields",
        "release_slot",
        "reply_headers",
        "request_id",
        "sent_request_id",
    )  # fmt: skip

    def __init__(self, environ: WSGIEnvironment, settings: Settings, watch: DisconnectMonitor) -> None:
        self._settings = settings
        self._started = perf_counter()
        self._watch = watch
        self._descriptor = -1
        # Not the environment itself: it holds this call, and a circle of the two would wait for the collector.
        self._place = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        self.cancellation = CancellationToken()
        self.log_fields: dict[str, Any] = {}
        self.reply_headers: dict[str, str] = {}
        self.is_streamed = self.is_finished = False
        self.release_slot: Callable[[], None] | None = None
        sent = environ.get("HTTP_X_REQUEST_ID", "")
        self.sent_request_id = sent if _REQUEST_ID.fullmatch(sent) else None
        self.request_id = self.sent_request_id or f"req_{_PROCESS}{next(_counter):012x}"
        self.authorization = authorization_of(environ)
        sock = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
        if sock is not None:
            self._descriptor = sock.fileno()
            watch.add(self._descriptor, self.cancellation)

    def to_context(self, *, is_streamed: bool) -> CallContext:
        """What the backends get to know. A caller's key is passed on only where this server asks for none itself."""
        asked = current_request()
        return CallContext(
            request_id=self.request_id,
            cancellation=self.cancellation,
            headers=forwardable_headers(asked.environ, self.request_id),
            authorization=None if self._settings.api_keys else self.authorization,
            heartbeat_interval=self._settings.sse_keepalive_seconds if is_streamed else 0.0,
            caller=self.authorization,
            conversation_id=asked.environ.get("HTTP_X_CONVERSATION_ID"),
            sent_header=asked.headers.get,
            reply_headers=self.reply_headers,
        )

    def log_body(self, body: bytes) -> None:
        """Puts the raw request into the log, where `LOG_REQUEST_BODIES` asks for it."""
        if self._settings.log_request_bodies:
            log_request_body(body)

    def note_usage(self, usage: Usage | None) -> None:
        if usage is not None:
            self.log_fields["prompt_tokens"] = usage.prompt_tokens
            self.log_fields["completion_tokens"] = usage.completion_tokens

    @property
    def milliseconds(self) -> int:
        return round((perf_counter() - self._started) * 1000)

    def finish(self, status: int) -> None:
        """The last byte is out, or the client is gone: one line in the log, once."""
        if self.is_finished:
            return
        self.is_finished = True
        self._watch.remove(self._descriptor, self.cancellation)
        if self.release_slot is not None:
            self.release_slot()
        level = logging.DEBUG if self._place in HEALTH_CHECKS else logging.INFO
        if log.isEnabledFor(level):
            has_left = self.cancellation.is_cancelled and self.cancellation.reason is None
            log_fields = {"status": 499 if has_left else status, "ms": self.milliseconds, **self.log_fields}
            place = self._place.encode("latin-1").decode("utf-8", "replace")
            record = logging.LogRecord(log.name, level, "", 0, place, None, None)  # `log.log` takes 2 µs more
            record.fields = log_fields
            log.handle(record)


def authorization_of(environ: Mapping[str, Any]) -> str | None:
    """The caller's credential as an `Authorization` value; Azure's clients send theirs as `api-key`.

    Where both are there, a bearer token is the API's, and any other scheme is for a proxy on the way.
    """
    value: str | None = environ.get("HTTP_AUTHORIZATION")
    key = environ.get("HTTP_API_KEY")
    if key and not (value or "").lower().startswith("bearer "):
        return f"Bearer {key}"
    return value


def forwardable_headers(environ: Mapping[str, Any], request_id: str) -> dict[str, str]:
    """The client's headers for an upstream, and the id under which both can be found in the logs."""
    travelling = _FORWARDED_WITH_GET if environ["REQUEST_METHOD"] in {"GET", "HEAD"} else FORWARDED_HEADERS
    headers = {name: environ[key] for key in environ if (name := _forwarded_name(key, travelling))}
    headers["x-request-id"] = request_id
    return headers


@lru_cache(maxsize=1024)
def _forwarded_name(environ_name: str, travelling: frozenset[str]) -> str | None:
    """The header's name, where it may travel; remembered, as every request of a client has the same headers."""
    if environ_name in travelling or environ_name.startswith(_FORWARDED_PREFIXES):
        return environ_name.removeprefix("HTTP_").lower().replace("_", "-")
    return None


def limit_concurrency(gate: ConcurrencyLimiter) -> Callable[[], None]:
    """A `before_request` function that lets a request in when there is a place for it."""

    def admit() -> None:
        if request.method != "OPTIONS":
            call = current_context()
            gate.acquire(call.cancellation)
            call.release_slot = gate.release

    return admit


def current_request() -> Request:
    """The request itself: through Flask's `request`, each attribute costs several times as much as this."""
    asked: Request = request._get_current_object()  # type: ignore[attr-defined]
    return asked


def current_context() -> RequestContext:
    call: RequestContext = current_request().environ[CONTEXT_KEY]
    return call


def install_request_context(app: Flask, settings: Settings, watch: DisconnectMonitor) -> None:
    """Every request becomes a `RequestContext`, and every response says so in its headers."""

    @app.before_request
    def begin() -> None:
        asked = current_request()
        asked.max_content_length = settings.max_request_bytes  # or Flask looks it up in the application each time
        environ = asked.environ
        environ[CONTEXT_KEY] = call = RequestContext(environ, settings, watch)
        logs.request_id.set(call.request_id)

    @app.after_request
    def stamp(response: Response) -> Response:
        call = current_context()
        headers = response.headers
        present = {name.lower() for name, _ in headers}
        if "x-request-id" in present:
            call.log_fields["upstream_request_id"] = headers["x-request-id"]
            if call.sent_request_id:
                headers["x-request-id"] = call.request_id
        else:
            headers.add("x-request-id", call.request_id)
        if "openai-processing-ms" not in present:
            headers.add("openai-processing-ms", str(call.milliseconds))
        if "openai-version" not in present:
            headers.add("openai-version", OPENAI_VERSION)
        if call.reply_headers:
            headers.update(call.reply_headers)
        if not call.is_streamed:
            call.finish(response.status_code)
        return response
