"""Inference requests, from the body to the response."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any, Final, TypeVar

from flask import Request, Response
from marshmallow import Schema
from werkzeug.exceptions import RequestEntityTooLarge

from openai_compat.core.byte_budget import ByteBudget
from openai_compat.core.errors import InvalidRequestError, OpenAICompatError, UnsupportedMediaTypeError
from openai_compat.core.hooks import HookCall, run
from openai_compat.core.types import JSON, CallContext
from openai_compat.routing.failover import FailoverExecutor
from openai_compat.routing.router import ModelRouter, Route
from openai_compat.services.inference import Answer, Endpoint, answer_call
from openai_compat.services.inference_call import InferenceCall
from openai_compat.services.stream_recovery import OnRouted

from .body import parse_json_object, validate
from .body_blocks import READ_BYTES, join_blocks, read_blocks, unreadable_body
from .content_encoding import decode_body
from .request_context import CONTEXT_KEY, RequestContext, current_context, current_request
from .respond import respond
from .sse import OPENAI_FORMAT, StreamFormat

LARGE_BYTES: Final = 1_048_576
"""Larger bodies are parsed one at a time, as their values take several times their memory."""
SHORT_BODY: Final = "The request body is shorter than its Content-Length says."


def respond_to_inference(endpoint: Endpoint, schema: Schema, router: ModelRouter, deployment: str | None) -> Response:
    """Answer the current request. A deployment in the path names the model, as Azure's clients do."""
    body, payload = read_payload(schema)
    route = choose_route(router, deployment or payload.get("model"), payload)
    return respond_to_call(endpoint, route, InferenceCall(endpoint.path, body, payload, route.model))


E = TypeVar("E", bound=Endpoint)


def respond_to_call(
    endpoint: E,
    route: Route,
    call: InferenceCall,
    stream_format: StreamFormat = OPENAI_FORMAT,
    answer: Callable[[E, Route, InferenceCall, CallContext, OnRouted], Answer] = answer_call,
) -> Response:
    """Answer a validated call of the current request, the same way for every endpoint.

    `stream_format` is what differs in streams, and `answer` may do more than `answer_call`. A failure before the first
    byte is raised, and the blueprint's error handler gives it the endpoint's shape.

    Raises:
        PermissionDeniedError, RateLimitedError, AccountsUnavailableError: the caller may not make the call.
        OpenAICompatError: as from `answer_call`, within the heartbeat interval.
    """
    context = current_context()
    context.operation = call.path
    context.log_fields["model"] = route.model
    context.log_fields["kind"] = route.entry.kind
    if context.trace is not None and context.trace.is_sampled:
        context.trace.payload = call.payload
    if route.target is not None:
        context.log_fields["upstream"] = route.target.model
    context.served = route.backend.entry
    if context.accounts is not None:
        try:
            admission = context.accounts.admit(context.caller, call, route, context.request_id, endpoint.stored_tokens)
        except BaseException:
            endpoint.release()
            raise
        context.admit(admission)
    is_streamed = call.is_streamed
    call_context = context.to_call_context(
        is_streamed=is_streamed and stream_format.keep_alive is not None, is_whole=not is_streamed
    )
    start = partial(answer, endpoint, route, call, call_context, partial(add_route_headers, context))
    return respond(context, call_context, start, stream_format)


def read_payload(schema: Schema) -> tuple[bytes, JSON]:
    """Return the request's body as bytes and as validated JSON.

    Raises:
        UnsupportedMediaTypeError, InvalidRequestError, RequestTimeoutError, OverloadedError, CallCancelledError
        werkzeug's RequestEntityTooLarge
    """
    request = current_request()
    if request.mimetype not in {"application/json", ""} and not request.is_json:
        raise UnsupportedMediaTypeError(
            f"Unsupported content type: '{request.mimetype}'. This API takes JSON: send the header "
            "'Content-Type: application/json'."
        )
    context: RequestContext = request.environ[CONTEXT_KEY]
    body = read_body(request)
    if len(body) > LARGE_BYTES:
        return _take_large_body(context, request, body, schema)
    if context.limiter is not None:
        context.take_slot()
    return _parse(context, request, body, schema)


def _take_large_body(context: RequestContext, request: Request, body: bytes, schema: Schema) -> tuple[bytes, JSON]:
    """Parse a large body, one at a time. Its memory counts as that of an unfinished one until then.

    Raises:
        As `read_payload`.
    """
    with context.body_budget.share() as held:
        held.add(len(body))
        context.take_slot()
        with context.body_budget.exclusive:
            return _parse(context, request, body, schema)


def _parse(context: RequestContext, request: Request, body: bytes, schema: Schema) -> tuple[bytes, JSON]:
    if encoding := request.environ.get("HTTP_CONTENT_ENCODING"):
        body = decode_body(body, encoding, request.max_content_length or 0)
    context.log_body(body)
    return body, validate(schema, parse_json_object(body))


def read_body(request: Request) -> bytes:
    """Return the complete body.

    Raises:
        InvalidRequestError: it is not framed as HTTP requires. RequestTimeoutError: it arrives too slowly.
        OverloadedError: the worker holds too many unfinished bodies. werkzeug's RequestEntityTooLarge: it is too long.
    """
    environ = request.environ
    length = request.content_length
    largest = min(READ_BYTES, request.max_content_length or 0)
    if length is None or length > largest or not environ.get("wsgi.input_terminated"):
        return _read_large_body(request)
    try:
        body: bytes = environ["wsgi.input"].read(length)  # without the two streams that werkzeug puts around it
    except OpenAICompatError:
        raise
    except Exception as error:  # each WSGI server has exceptions of its own for it
        raise unreadable_body() from error
    if len(body) < length:
        raise InvalidRequestError(SHORT_BODY)
    return body


def _read_large_body(request: Request) -> bytes:
    """Return a body that may be longer than one block. Its memory counts until it is complete."""
    limit, length = request.max_content_length, request.content_length
    budget: ByteBudget = request.environ[CONTEXT_KEY].body_budget
    with budget.share() as held:
        body = join_blocks(read_blocks(request.stream), held)
    if length is None and limit is not None and len(body) >= limit:
        raise RequestEntityTooLarge  # werkzeug returns the part of a chunked body within the limit
    if length is not None and len(body) < length:
        raise InvalidRequestError(SHORT_BODY)
    return body


def choose_route(router: ModelRouter, model: str | None, payload: Mapping[str, Any]) -> Route:
    """Return the route of `model`, or of the model that its hook names instead. The hook of that one is not called.

    Raises:
        ModelNotFoundError, InvalidRequestError; OpenAICompatError: the hook's own.
    """
    route = router.route(model)
    hooks = route.entry.hooks
    if hooks is None or hooks.choose_model is None:
        return route
    call = HookCall(route.model, current_context().request_id, current_request().headers.get)
    chosen = run(hooks.choose_model, deepcopy(dict(payload)), call, str)
    return route if chosen is None else router.route(chosen)


def add_route_headers(context: RequestContext, failover: FailoverExecutor[Any]) -> None:
    """Report the last target and the number of attempts, in the access log and in the response headers.

    The access log also lists the models if several were tried.
    """
    target = failover.target
    if target is None:
        return
    context.served = target.backend.entry
    context.log_fields.update(upstream=target.model, attempts=failover.attempts)
    if len(failover.tried) > 1:
        context.log_fields["tried"] = ",".join(failover.tried)
    context.reply_headers |= {
        "x-openai-compat-upstream": target.model,
        "x-openai-compat-attempts": str(failover.attempts),
        "x-openai-compat-fallback": "true" if failover.is_fallback else "false",
    }
