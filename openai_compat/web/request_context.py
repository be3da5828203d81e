"""Per-request context with the request id, cancellation on client disconnect, and the access-log line."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from itertools import count
from secrets import token_hex
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, Request, Response, request

from openai_compat.accounts.service import EndedCall
from openai_compat.core import logging as logs
from openai_compat.core.byte_budget import ByteBudget
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.concurrency import ConcurrencyLimiter
from openai_compat.core.observation import MAX_KEPT_BYTES, Activity, AttemptRecord, EndedRequest, KeptBodies, Observer
from openai_compat.core.profiles import ADAPTED_HEADER
from openai_compat.core.settings import MONITORING_PATHS, Settings
from openai_compat.core.trace import Trace
from openai_compat.core.types import CallContext, Usage

from .body_logging import log_request_body
from .client_monitor import DisconnectMonitor
from .forwarded_headers import authorization_of, forwardable_headers

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from openai_compat.accounts.account import Caller
    from openai_compat.accounts.gate import Admission
    from openai_compat.accounts.service import Accounts
    from openai_compat.accounts.stream_size import StreamSize
    from openai_compat.core.settings import ModelConfig
    from openai_compat.services.responses.background import BackgroundEnd

log = logging.getLogger(__name__)

CONTEXT_KEY: Final = "openai_compat.context"
"""Key of the request's `RequestContext` in its WSGI environment."""
MONITORING: Final = frozenset(f"GET {path}" for path in MONITORING_PATHS)
"""Requests that monitoring sends every few seconds. They are logged at DEBUG, or they would hide all other lines."""
METHODS_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
OPENAI_VERSION: Final = "2020-10-01"
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)

# Request ids must be unique, not secret. Random bytes from the system for each of them would take longer.
_PROCESS_ID = token_hex(10)
_counter = count(1)


class RequestContext:
    """State of one HTTP request.

    `log_fields` are added to the access-log line, and `reply_headers` to the response, successful or not.
    `body_budget` is that of all unfinished bodies of the worker. `limiter` is the one whose slot the request takes once
    its body is complete, and `release_slot` returns that slot. `accounts` is set for calls that are recorded, `caller`
    for those with a key of an account, and `admission` once such a call was admitted. `identity` distinguishes callers.
    `streamed` is the estimate of the tokens of a streamed answer, and `answer_bytes` the length of a complete one.
    `bodies` are the beginnings of the request and the answer, if they are kept for the log of calls.
    `served` is the model config of the model that answers, the last target that was tried where there are several.
    `operation` is the path of a call to a model, below the API's root, or the name of the view. `error` is the code or
    the type of the error that the client gets. `attempts` are those at the targets of its route.
    """

    __slots__ = (
        "_activity",
        "_descriptor",
        "_endpoint",
        "_monitor",
        "_observers",
        "_settings",
        "_started_at",
        "accounts",
        "admission",
        "answer_bytes",
        "attempts",
        "authorization",
        "bodies",
        "body_budget",
        "caller",
        "cancellation",
        "client_request_id",
        "error",
        "first_token_at",
        "identity",
        "is_closed",
        "is_streamed",
        "limiter",
        "log_fields",
        "operation",
        "release_slot",
        "reply_headers",
        "request_id",
        "served",
        "streamed",
        "trace",
        "usage",
    )  # fmt: skip

    def __init__(
        self,
        environ: WSGIEnvironment,
        settings: Settings,
        monitor: DisconnectMonitor,
        body_budget: ByteBudget,
        observers: Sequence[Observer],
        activity: Activity,
    ) -> None:
        self._settings = settings
        self._activity = activity
        activity.requests += 1
        self.body_budget = body_budget
        self._started_at = perf_counter()
        self._monitor = monitor
        self._observers = observers
        self._descriptor = -1
        # A copy, as a reference to the environment, which holds this context, would be a reference cycle.
        self._endpoint = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        self.cancellation = CancellationToken()
        self.log_fields: dict[str, Any] = {}
        self.reply_headers: dict[str, str] = {}
        self.is_streamed = self.is_closed = False
        self.limiter: ConcurrencyLimiter | None = None
        self.release_slot: Callable[[], None] | None = None
        sent_id = environ.get("HTTP_X_REQUEST_ID", "")
        self.client_request_id = sent_id if _REQUEST_ID.fullmatch(sent_id) else None
        self.request_id = self.client_request_id or f"req_{_PROCESS_ID}{next(_counter):012x}"
        self.authorization = self.identity = authorization_of(environ)
        self.accounts: Accounts | None = None
        self.caller: Caller | None = None
        self.admission: Admission | None = None
        self.usage: Usage | None = None
        self.served: ModelConfig | None = None
        self.first_token_at: float | None = None
        self.attempts: list[AttemptRecord] = []
        self.bodies: KeptBodies | None = None
        self.error: str | None = None
        self.operation = ""
        self.trace: Trace | None = None
        self.answer_bytes = 0
        self.streamed: StreamSize | None = None
        sock = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
        if sock is not None:
            self._descriptor = sock.fileno()
            monitor.add(self._descriptor, self.cancellation)

    def to_call_context(self, *, is_streamed: bool, is_whole: bool = False) -> CallContext:
        """Return the context for backends. The client's key is forwarded only if this server requires no key.

        `is_whole` is True if the answer is complete before the client gets any of it.
        """
        current = current_request()
        headers = forwardable_headers(current.environ, self.request_id)
        if self.trace is not None:
            headers = self.trace.headers(headers, self.trace.attempt_id)
        return CallContext(
            request_id=self.request_id,
            cancellation=self.cancellation,
            headers=headers,
            authorization=None if self._settings.api_keys or self.accounts else self.authorization,
            heartbeat_interval=self._settings.sse_keepalive_seconds if is_streamed else 0.0,
            caller=self.identity,
            conversation_id=current.environ.get("HTTP_X_CONVERSATION_ID"),
            sent_header=current.headers.get,
            reply_headers=self.reply_headers,
            is_whole=is_whole,
            attempts=self.attempts,
            trace=self.trace,
        )

    def take_slot(self) -> None:
        """Wait for a slot of the limiter and take it, if the request still needs one.

        Raises:
            OverloadedError, CallCancelledError
        """
        limiter, self.limiter = self.limiter, None
        if limiter is not None:
            limiter.acquire(self.cancellation)
            self.release_slot = limiter.release

    def set_caller(self, caller: Caller) -> None:
        """Note whose key the request has. Objects belong to its project, and no upstream gets the key."""
        self.caller = caller
        self.identity = f"Project {caller.project.id}"

    def admit(self, admission: Admission) -> None:
        """Note that the call was charged, and report what is left of the caller's limits."""
        self.admission = admission
        self.reply_headers |= admission.headers()

    def start_stream(self) -> None:
        """Note that the answer is a stream."""
        self.is_streamed = True
        self._activity.streams += 1

    def hand_over(self) -> Handover:
        """Return what the request no longer does at its end, because a background response goes on with it."""
        release, self.release_slot = self.release_slot, None
        admission, self.admission = self.admission, None
        observers, self._observers = self._observers, ()
        return Handover(self, release, admission, observers)

    def log_body(self, body: bytes) -> None:
        """Log the request body if `LOG_REQUEST_BODIES` is set, and keep its beginning if `CALL_LOG_BODIES` is."""
        if self._settings.log_request_bodies:
            log_request_body(body)
        if self._settings.call_log_bodies:
            self.bodies = KeptBodies(body[:MAX_KEPT_BYTES])

    def record_usage(self, usage: Usage | None) -> None:
        """Keep the token counts for the access-log line and the accounts."""
        if usage is not None:
            self.usage = usage
            self.log_fields["prompt_tokens"] = usage.prompt_tokens
            self.log_fields["completion_tokens"] = usage.completion_tokens

    def note_first_token(self) -> None:
        """Note that the answer starts now."""
        self.first_token_at = perf_counter()

    @property
    def first_token_ms(self) -> int | None:
        """Milliseconds from the start of the request to that of the answer, or None if there was none."""
        return None if self.first_token_at is None else round((self.first_token_at - self._started_at) * 1000)

    @property
    def elapsed_ms(self) -> int:
        """Milliseconds since the start of the request."""
        return round((perf_counter() - self._started_at) * 1000)

    def close(self, status: int) -> None:
        """End the request, after its last byte or a client disconnect, and write the access-log line.

        Further calls have no effect.
        """
        if self.is_closed:
            return
        self.is_closed = True
        self._activity.requests -= 1
        if self.is_streamed:
            self._activity.streams -= 1
        self._monitor.remove(self._descriptor, self.cancellation)
        if self.release_slot is not None:
            self.release_slot()
        has_disconnected = self.cancellation.is_cancelled and self.cancellation.reason is None
        if self.admission is not None:
            self.settle(
                self.admission,
                499 if has_disconnected else status,
                self.usage,
                None if self.streamed is None else self.streamed.tokens,
                goes_on=self.admission.call.is_background,
            )
        if self._observers:
            self.report(499 if has_disconnected else status, self.usage, self._observers)
        level = logging.DEBUG if self._endpoint in MONITORING else logging.INFO
        if log.isEnabledFor(level):
            log_fields = {"status": 499 if has_disconnected else status, "ms": self.elapsed_ms, **self.log_fields}
            endpoint = self._endpoint.encode("latin-1").decode("utf-8", "replace")
            if endpoint.count(" ") > 1:  # a path with spaces could imitate the fields behind it
                endpoint = endpoint.replace(" ", "%20").replace("%20", " ", 1)
            log.handle(logs.to_record(log.name, level, endpoint, log_fields))  # `log.log` takes 5 µs more

    def report(self, status: int, usage: Usage | None, observers: Sequence[Observer]) -> None:
        """Tell the observers how the request ended."""
        key = None if self.caller is None else self.caller.key
        fields = self.log_fields
        ended = EndedRequest(
            self.request_id,
            self.operation,
            status,
            self.error,
            fields.get("model", ""),
            fields.get("kind", ""),
            fields.get("upstream", ""),
            self._started_at,
            perf_counter(),
            self.first_token_at,
            self.is_streamed,
            usage,
            self.attempts,
            None if key is None else key.parent_id,
            None if key is None else key.id,
            None if key is None else key.name,
            self.served,
            self.reply_headers.get(ADAPTED_HEADER, ""),
            self.trace,
            self.bodies,
        )
        for observe in observers:
            observe(ended)

    def settle(
        self,
        admission: Admission,
        status: int,
        usage: Usage | None,
        streamed_tokens: int | None,
        *,
        goes_on: bool = False,
    ) -> None:
        """Settle what the call was charged. With `goes_on` the upstream works on after the call."""
        accounts = self.accounts
        assert accounts is not None  # noqa: S101 - it made the admission
        fields = self.log_fields
        accounts.settle(
            admission,
            EndedCall(
                status,
                self.elapsed_ms,
                usage,
                streamed_tokens,
                answer_bytes=self.answer_bytes,
                goes_on=goes_on,
                is_sent=any(attempt.is_sent for attempt in self.attempts),
                served=self.served,
                served_by=fields.get("upstream"),
                attempts=fields.get("attempts", 1),
                error=fields.get("error"),
                first_token_ms=self.first_token_ms,
            ),
        )


class Handover:
    """The slot, the admission and the observers of a request whose work goes on in the background."""

    def __init__(
        self,
        context: RequestContext,
        release: Callable[[], None] | None,
        admission: Admission | None,
        observers: Sequence[Observer],
    ) -> None:
        self._context = context
        self._release = release
        self._admission = admission
        self._observers = observers

    def end(self, end: BackgroundEnd) -> None:
        """Release the slot, settle the call, and report its end."""
        if self._release is not None:
            self._release()
        context = self._context
        context.error, context.first_token_at = end.error, end.first_token_at
        if self._admission is not None:
            context.settle(self._admission, end.status, end.usage, end.streamed_tokens)
        context.report(end.status, end.usage, self._observers)


def limit_concurrency(limiter: ConcurrencyLimiter) -> Callable[[], None]:
    """Return a `before_request` function that waits for a slot of `limiter`.

    A request with a body takes its slot once the body is complete, so that slow clients hold none. It is refused before
    that if the queue is full.
    """

    def acquire_slot() -> None:
        current = current_request()
        if current.method == "OPTIONS":
            return
        context: RequestContext = current.environ[CONTEXT_KEY]
        context.limiter = limiter
        if current.method in METHODS_WITH_BODY and (
            current.content_length or "HTTP_TRANSFER_ENCODING" in current.environ
        ):
            limiter.check()
        else:
            context.take_slot()

    return acquire_slot


def current_request() -> Request:
    """Return the request itself. Each attribute access through Flask's `request` proxy costs several times as much."""
    current: Request = request._get_current_object()  # type: ignore[attr-defined]
    return current


def current_context() -> RequestContext:
    """Return the context of the current request."""
    context: RequestContext = current_request().environ[CONTEXT_KEY]
    return context


def install_request_context(
    app: Flask,
    settings: Settings,
    monitor: DisconnectMonitor,
    check: Callable[[WSGIEnvironment], None],
    observers: Sequence[Observer] = (),
    start_trace: Callable[[WSGIEnvironment], Trace] | None = None,
    activity: Activity | None = None,
) -> None:
    """Give every request of `app` a `RequestContext`, and every response the headers that come from it.

    `check` raises an error for a request that is not to be answered. `observers` are told how each request ended, and
    `activity` has the number of those that have not. `start_trace` begins the trace of a request, if traces are on.
    """
    counted = activity or Activity()
    body_budget = ByteBudget(settings.max_unfinished_body_bytes)

    @app.before_request
    def open_context() -> None:
        current = current_request()
        current.max_content_length = settings.max_request_bytes  # saves Flask a lookup in the application's config
        environ = current.environ
        environ[CONTEXT_KEY] = context = RequestContext(environ, settings, monitor, body_budget, observers, counted)
        logs.request_id.set(context.request_id)
        if start_trace is not None:
            context.trace = start_trace(environ)
        check(environ)

    @app.after_request
    def complete(response: Response) -> Response:
        current = current_request()
        context: RequestContext = current.environ[CONTEXT_KEY]
        _add_headers(response, context)
        if not context.operation:
            context.operation = (current.endpoint or "").rpartition(".")[2]
        if not context.is_streamed:
            context.close(response.status_code)
        return response


def _add_headers(response: Response, context: RequestContext) -> None:
    """Add the headers that come from the request. Those of an upstream are kept."""
    headers = response.headers
    present = {name.lower() for name, _ in headers}
    if "x-request-id" in present:
        context.log_fields["upstream_request_id"] = headers["x-request-id"]
        if context.client_request_id:
            headers["x-request-id"] = context.request_id
    else:
        headers.add("x-request-id", context.request_id)
    if "openai-processing-ms" not in present:
        headers.add("openai-processing-ms", str(context.elapsed_ms))
    if "openai-version" not in present:
        headers.add("openai-version", OPENAI_VERSION)
    for name, value in context.reply_headers.items():
        if name.lower() in present:
            headers[name] = value
        else:
            headers.add(name, value)  # a third of the time
