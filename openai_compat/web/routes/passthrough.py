"""Reverse proxy for all other endpoints of OpenAI's API (files, images, audio, batches, responses, ...).

It forwards any method and body, streamed in both directions, to the upstream of the model that the request names, or
to the default upstream.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode

from flask import Blueprint, Response, request

from openai_compat.accounts.gate import check_model
from openai_compat.backends.base import SupportsForwarding
from openai_compat.backends.http.messages import UpstreamRequest, UpstreamResponse
from openai_compat.core.errors import (
    CapabilityError,
    InvalidRequestError,
    NotFoundError,
    RequestError,
    UpstreamError,
    UpstreamInvalidResponseError,
    WebSocketError,
)
from openai_compat.core.settings import Settings
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import Usage
from openai_compat.routing.router import ModelRouter
from openai_compat.services.forwarding import FILE_HEADERS, ForwardedBody, pass_through, response_headers, to_answer
from openai_compat.web.errors import is_websocket
from openai_compat.web.json_response import UNTRUSTED_HEADERS, BytesResponse
from openai_compat.web.passthrough_body import RequestBody, read_body
from openai_compat.web.passthrough_paths import (
    ROOT_AREAS,
    is_own_endpoint,
    is_served,
    leaves_root,
    split_deployment,
)
from openai_compat.web.request_context import RequestContext, current_context
from openai_compat.web.sse import StreamBody, StreamFormat, to_comment

URL_PREFIXES: Final = ("/v1", "/api/v1", "/openai/v1", "/openai")
NO_BODY_STATUSES: Final = frozenset({204, 205, 304})
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
DEFAULT_MODEL_AREAS: Final = frozenset({"images", "audio", "moderations", "videos", "realtime"})
"""First parts of paths for which an upstream has a default model."""
FREE_METHODS: Final = frozenset({"GET", "HEAD", "DELETE"})
"""Methods of calls that cost nothing, as they read or delete what was made before."""
FORM_AREAS: Final = ("audio/", "images/", "videos")
"""Endpoints whose forms name a model, which many clients send after the file."""


def passthrough_blueprint(router: ModelRouter, settings: Settings) -> Blueprint:
    """Return the blueprint of all paths below an API's root without an endpoint of this server."""
    blueprint = Blueprint("passthrough", __name__)

    @blueprint.route("/<path:path>", methods=METHODS)
    def proxy(path: str) -> Response:
        return _Forwarder(router, settings, path).respond()

    return blueprint


def root_passthrough_blueprint(router: ModelRouter, settings: Settings) -> Blueprint:
    """Return the blueprint of the passthrough without a prefix, for the known parts of OpenAI's API."""
    blueprint = Blueprint("root_passthrough", __name__)

    def proxy(path: str = "") -> Response:
        return _Forwarder(router, settings, request.path[1:]).respond()

    for area in ROOT_AREAS:
        blueprint.add_url_rule(f"/{area}", "proxy", proxy, methods=METHODS)
        blueprint.add_url_rule(f"/{area}/<path:path>", "proxy", proxy, methods=METHODS)
    return blueprint


class Passthrough:
    """The passthrough for endpoints of this server that may concern an upstream's objects as well."""

    def __init__(self, router: ModelRouter, settings: Settings) -> None:
        self._router = router
        self._settings = settings

    def serves(self, path: str) -> bool:
        """Return True if the current request, for `path` below an API's root, goes to an upstream."""
        return is_served(path, self._settings.passthrough) and (
            self._router.forwarding_upstream is not None or self._is_forwarded(request.args.get("model"))
        )

    def _is_forwarded(self, model: str | None) -> bool:
        """Return True if the query names a model of an upstream."""
        try:
            return model is not None and self._router.forwarding_target(model) is not None
        except RequestError:
            return False

    def forward(self, path: str) -> Response:
        """Forward the current request, whose body must not have been read.

        It is about an object that was stored before, which costs nothing and is not charged. The caller must have been
        allowed to use the endpoint.

        Raises:
            RequestError, UpstreamError, CallCancelledError
        """
        return _Forwarder(self._router, self._settings, path, is_charged=False).respond()


class _Forwarder:
    """One request of the passthrough. `path` is the part of its URL below the API's root."""

    def __init__(self, router: ModelRouter, settings: Settings, path: str, *, is_charged: bool = True) -> None:
        self._router = router
        self._settings = settings
        self._is_charged = is_charged
        self._is_azure = request.path.startswith("/openai/")
        self._deployment, self._path = self._check_path(path)

    def respond(self) -> Response:
        """Forward the request and return the response.

        Raises:
            RequestError: the path, the body or the model may not be forwarded. UpstreamError, CallCancelledError
            PermissionDeniedError, RateLimitedError, AccountsUnavailableError: the caller may not make the call.
        """
        request.max_content_length = self._settings.max_upload_bytes
        context = current_context()
        call_context = context.to_call_context(is_streamed=True)
        body = read_body(
            request,
            self._settings.max_request_bytes,
            context.body_budget,
            is_judged=self._router.has_models or self._deployment is not None or _is_restricted(context),
            reads_files=self._path.startswith(FORM_AREAS),
        )
        context.take_slot()
        backend, query = self._choose_upstream(body, context)
        self._admit(context)
        headers = dict(call_context.headers)
        if request.content_type:
            headers["content-type"] = request.content_type
        if body.encoding:
            headers["content-encoding"] = body.encoding
        path = f"{_raw_path(self._path)}{query and '?'}{query}"
        forwarded = UpstreamRequest(request.method, path, headers, body.content, body.length)
        reply, reply_body = pass_through(backend, forwarded, call_context)
        if reply.status >= 400 or reply.status in NO_BODY_STATUSES or request.method == "HEAD":
            return _complete_response(reply)
        return _streamed_response(reply, reply_body, context)

    def _admit(self, context: RequestContext) -> None:
        """Charge the caller for the request, or check only that the caller may use the model.

        Raises:
            PermissionDeniedError, RateLimitedError, AccountsUnavailableError
        """
        model = context.log_fields.get("model", "")
        if self._is_charged and context.accounts is not None:
            is_free = request.method in FREE_METHODS
            context.admit(context.accounts.admit_other(context.caller, model, context.request_id, is_free=is_free))
        elif model and context.caller is not None:
            check_model(context.caller, model)

    def _check_path(self, path: str) -> tuple[str | None, str]:
        """Return the model in a path of Azure's, and the path without it.

        Raises:
            NotFoundError: the path is not one that is forwarded. WebSocketError
        """
        if is_websocket(request):
            raise WebSocketError
        check_path(path)
        deployment = None
        if self._is_azure and path.split("/", 1)[0] == "deployments":
            found = split_deployment(path)
            if found is None:
                raise not_found()
            deployment, path = found
        if is_own_endpoint(request.method, path) or not is_served(path, self._settings.passthrough):
            raise not_found()
        return deployment, path

    def _choose_upstream(self, body: RequestBody, context: RequestContext) -> tuple[SupportsForwarding, str]:
        """Return the upstream, and the query for it. The model is named in them and in `body` as the upstream does."""
        query = self._query()
        model = self._named_model(body, query)
        if model is None:
            upstream = self._router.forwarding_upstream
            if upstream is None:
                raise not_found()
            if _is_restricted(context):
                self._check_restricted(body, query, context)
            body.watch(partial(self._reject_late_model, context))
            return upstream, query
        target = self._router.forwarding_target(model)
        if target.backend.hooks is not None:
            raise CapabilityError(
                f"The model '{model}' has a hook, which this endpoint could not run.",
                param="model",
                code="hook_not_available",
            )
        context.log_fields.update(model=model, kind=target.kind)
        if body.model is not None or self._deployment is not None:
            body.set_model(target.model)
        return target.backend, _rename_in_query(query, target.model)

    def _check_restricted(self, body: RequestBody, query: str, context: RequestContext) -> None:
        """Note the model that a caller names who may use some models only.

        Raises:
            InvalidRequestError: it names none where the upstream would take its default.
        """
        names = self._names_in(body, query)
        if names:
            context.log_fields["model"] = max(names)
        elif request.method == "POST" and self._path.split("/", 1)[0] in DEFAULT_MODEL_AREAS:
            raise InvalidRequestError("Your key may use some models only. Name a model.", param="model")

    def _query(self) -> str:
        """Return the query without the `api-version` of Azure's clients, which an upstream may refuse."""
        query: str = request.environ.get("QUERY_STRING", "")
        if self._is_azure and "api-version" in query:
            return "&".join(part for part in query.split("&") if not part.startswith("api-version="))
        return query

    def _named_model(self, body: RequestBody, query: str) -> str | None:
        """Return the model that the path, the body or the query names.

        Raises:
            InvalidRequestError: body and query name different ones.
        """
        if self._deployment is not None or not self._router.has_models:
            return self._deployment
        names = self._names_in(body, query)
        return names.pop() if names else None

    def _names_in(self, body: RequestBody, query: str) -> set[str]:
        """Return the model that the body, the query or the path names, an empty set without one.

        Raises:
            InvalidRequestError: they name different ones.
        """
        names = {name for name in (body.model, *_models_in_query(query), _model_in_path(self._path)) if name}
        if len(names) > 1:
            raise InvalidRequestError("The request names two models.", param="model")
        return names

    def _reject_late_model(self, context: RequestContext, model: str) -> None:
        """Raise an error if a form names, after its file, a model that the default upstream or the caller may not get.

        Raises:
            InvalidRequestError, PermissionDeniedError
        """
        if context.caller is not None:
            check_model(context.caller, model)
        if not self._router.has_models:
            return
        target = self._router.forwarding_target(model)
        if target.backend is not self._router.forwarding_upstream or target.model != model:
            raise InvalidRequestError("Send the form's field 'model' before the file.", param="model")


def _is_restricted(context: RequestContext) -> bool:
    """Return True if the caller may use some models only, so that the one that a request names is to be known."""
    return context.caller is not None and any(account.policy.models for account in context.caller.accounts)


def not_found() -> NotFoundError:
    """Return the error for the current request's URL."""
    return NotFoundError(f"Invalid URL ({request.method} {request.path})")


def check_path(path: str) -> None:
    """Reject a path that leaves the root of the upstream's API, however it is encoded.

    The request to the upstream has this server's key, so that such a path could reach other services of that host.

    Raises:
        NotFoundError: the path has a segment `.` or `..`.
    """
    if leaves_root(path):
        raise not_found()


def _models_in_query(query: str) -> list[str]:
    return [value for key, value in parse_qsl(query) if key == "model"] if "model" in unquote(query) else []


def _rename_in_query(query: str, name: str) -> str:
    if all(model == name for model in _models_in_query(query)):
        return query
    return urlencode([(key, name if key == "model" else value) for key, value in parse_qsl(query, True)])


def _model_in_path(path: str) -> str | None:
    """Return the model of `models/{id}`, which a client may delete at the default upstream."""
    area, _, model = path.partition("/")
    return model if area == "models" else None


def _raw_path(path: str) -> str:
    """Return the path below the root with the client's percent-encoding."""
    raw: str = request.environ.get("RAW_URI", "").partition("?")[0]
    starts = (index + 1 for index, character in enumerate(raw) if character == "/")
    return next((raw[start:] for start in starts if unquote(raw[start:]) == path), quote(path, safe="/:@!$&'()*+,;=~"))


def _complete_response(reply: UpstreamResponse) -> Response:
    """Return the response for an error, in OpenAI's envelope, or for a reply without a body.

    Raises:
        UpstreamInvalidResponseError: the status is none of HTTP's, or one that has no body although there is one.
    """
    try:
        body = reply.read()
        if reply.status >= 600:
            raise UpstreamInvalidResponseError(f"The upstream answered with the invalid status {reply.status}.")
        if body and reply.status in NO_BODY_STATUSES:
            raise UpstreamInvalidResponseError(f"The upstream answered with status {reply.status} and a body.")
        answer = to_answer(reply, body, FILE_HEADERS)
    finally:
        reply.close()
    response = BytesResponse(answer.body, answer.status, {**answer.headers, **UNTRUSTED_HEADERS})
    if reply.status in NO_BODY_STATUSES:
        response.headers.remove("content-length")
    if reply.status == 416 and "content-range" in reply.headers:  # the size of the file
        response.headers["content-range"] = reply.headers["content-range"]
    return response


def _streamed_response(reply: UpstreamResponse, body: ForwardedBody, context: RequestContext) -> Response:
    """Return the response that relays the body, once its first bytes have arrived.

    An event stream begins earlier if the upstream is idle, with a comment. If the upstream fails after the first bytes,
    the connection is closed, because the content type may not support errors.

    Raises:
        UpstreamError: the upstream failed before them.
    """
    headers = {
        "content-type": "application/octet-stream",
        **response_headers(reply.headers, FILE_HEADERS),
        **UNTRUSTED_HEADERS,
        "x-accel-buffering": "no",
    }
    keep_alive = to_comment if headers["content-type"].startswith("text/event-stream") else None
    try:
        first = next(body, b"")
        while first is HEARTBEAT and keep_alive is None:
            first = next(body, b"")
    except BaseException:
        body.close()
        raise
    source = _ProxyBody(first, body)
    stream = StreamBody(context, source, source, StreamFormat(headers, keep_alive, to_error=None), reply.status)
    return Response(stream, reply.status, headers, direct_passthrough=True)


class _ProxyBody(Iterator["bytes | Heartbeat"]):
    """Bytes of a reply. Heartbeats are passed on between two events only, as one within an event would break it."""

    usage: Usage | None = None
    failure: UpstreamError | None = None

    def __init__(self, first: bytes | Heartbeat, body: ForwardedBody) -> None:
        self._body = body
        self._blocks = chain((first,), body)
        self._is_between_events = True

    def __next__(self) -> bytes | Heartbeat:
        block = next(self._blocks)
        if block is HEARTBEAT:
            return block if self._is_between_events else b""
        self._is_between_events = block.endswith((b"\n\n", b"\r\n\r\n"))
        return block

    def close(self) -> None:
        self._body.close()
