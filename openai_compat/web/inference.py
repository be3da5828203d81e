"""What the doors for chat, completions and embeddings share: from a request's bytes to a response, on one of two paths.

A backend that speaks OpenAI's protocol gets the bytes and gives bytes back; any other gets a typed request, and a
service makes OpenAI's objects of what it answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Protocol

from flask import Request, Response
from marshmallow import Schema
from werkzeug.exceptions import HTTPException

from openai_compat.backends.base import Backend, SupportsForwarding
from openai_compat.core.errors import InvalidRequestError, UnsupportedMediaTypeError
from openai_compat.core.hooks import HookCall, run
from openai_compat.core.streams import BackgroundStart, Heartbeat
from openai_compat.core.types import CallContext, Usage
from openai_compat.routing.route import Target
from openai_compat.routing.router import ModelRouter, Route
from openai_compat.services.failover_streams import EventStream
from openai_compat.services.forwarding import ForwardedAnswer, ForwardedStream, forward
from openai_compat.services.inference_call import InferenceCall
from openai_compat.services.preparation import needs_translation

from .body import parse_json_object, validate
from .deferred import deferred_response, start_or_defer
from .failover import respond_with_failover
from .request_context import CONTEXT_KEY, RequestContext, current_context, current_request
from .responses import BytesResponse, json_response, to_json
from .sse import DONE, HEADERS, StreamBody, stream_response, to_event, to_events

JSON = dict[str, Any]


class PendingAnswer(Protocol):
    """A typed answer under way: a whole object, or its chunks."""

    @property
    def usage(self) -> Usage | None: ...

    def to_completion(self) -> JSON: ...

    def chunks(self, *, includes_usage: bool) -> Iterator[JSON | Heartbeat]: ...

    def close(self) -> None: ...


StartAnswer = Callable[[Backend, str, Mapping[str, Any], CallContext], PendingAnswer]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One kind of inference: its `path` below an API's root, and what judges its bodies."""

    path: str
    schema: Schema


class TranslatedCalls:
    """How a door with typed answers asks one of several backends."""

    def __init__(self, start: StartAnswer, inference: InferenceCall) -> None:
        self._start = start
        self._inference = inference

    def whole(self, target: Target, context: CallContext) -> ForwardedAnswer:
        started = self._start(target.backend, target.model, self._inference.payload, context)
        try:
            body = to_json(started.to_completion())
            return ForwardedAnswer(200, {}, body, started.usage)
        finally:
            started.close()

    def stream(self, call: InferenceCall, target: Target, context: CallContext) -> EventStream:
        started = self._start(target.backend, target.model, call.payload, context)
        return TranslatedStream(started, _chunk_events(started, call))


@dataclass(frozen=True, slots=True)
class TranslatedStream:
    """A typed stream that has begun."""

    answer: PendingAnswer
    events: Iterator[bytes | Heartbeat]
    headers: Mapping[str, str] = field(default_factory=dict)
    has_failed: bool = False

    @property
    def usage(self) -> Usage | None:
        return self.answer.usage

    def close(self) -> None:
        self.answer.close()


def read_payload(schema: Schema) -> tuple[bytes, JSON]:
    """The request's body, as bytes and as what they say.

    Raises:
        UnsupportedMediaTypeError, PayloadError; werkzeug's RequestEntityTooLarge
    """
    asked = current_request()
    if asked.mimetype not in {"application/json", ""} and not asked.is_json:
        raise UnsupportedMediaTypeError(
            f"Unsupported content type: '{asked.mimetype}'. This API takes JSON: send the header "
            "'Content-Type: application/json'."
        )
    body = read_body(asked)
    call: RequestContext = asked.environ[CONTEXT_KEY]
    call.log_body(body)
    return body, validate(schema, parse_json_object(body))


def read_body(asked: Request) -> bytes:
    """The whole body.

    Raises:
        PayloadError: it is not framed as HTTP says. werkzeug's RequestEntityTooLarge: it is too long.
    """
    environ = asked.environ
    length = asked.content_length
    try:
        if length is None or length > (asked.max_content_length or 0) or not environ.get("wsgi.input_terminated"):
            return asked.get_data(cache=False)
        body: bytes = environ["wsgi.input"].read(length)  # without the two streams that werkzeug puts around it
    except HTTPException:
        raise
    except Exception as error:  # each WSGI server has exceptions of its own for it
        raise InvalidRequestError("The request body could not be read.") from error
    if len(body) < length:
        raise InvalidRequestError("The request body is shorter than its Content-Length says.")
    return body


def prepare_call(
    door: Endpoint, routing: ModelRouter, deployment: str | None
) -> tuple[RequestContext, Route, InferenceCall]:
    """The validated call and who answers it. A deployment in the path names the model, as Azure's clients do."""
    body, payload = read_payload(door.schema)
    route = choose_route(routing, deployment or payload.get("model"), payload)
    call = current_context()
    call.log_fields["model"] = route.model
    call.log_fields["kind"] = route.entry.kind
    return call, route, InferenceCall(door.path, body, payload, route.model)


def choose_route(routing: ModelRouter, model: str | None, payload: Mapping[str, Any]) -> Route:
    """Who answers for `model`, or for the one that its hook names instead. That one's hook is not asked again.

    Raises:
        ModelNotFoundError, PayloadError; OpenAICompatError: the hook's own.
    """
    route = routing.route(model)
    hooks = route.entry.hooks
    if hooks is None or hooks.choose_model is None:
        return route
    call = HookCall(route.model, current_context().request_id, current_request().headers.get)
    chosen = run(hooks.choose_model, deepcopy(dict(payload)), call, str)
    return route if chosen is None else routing.route(chosen)


def respond(door: Endpoint, routing: ModelRouter, start: StartAnswer, deployment: str | None) -> Response:
    """Answers a chat or completion call."""
    call, route, inference = prepare_call(door, routing, deployment)
    backend = route.backend
    context = call.to_context(is_streamed=inference.is_streamed)
    if route.plan is not None:
        return respond_with_failover(route.plan, TranslatedCalls(start, inference), inference, call, context)
    if isinstance(backend, SupportsForwarding) and not needs_translation(backend, inference):
        return respond_passthrough(backend, inference, call, context)
    if inference.is_streamed:
        started = start_or_defer(lambda: start(backend, route.model, inference.payload, context), context)
        if isinstance(started, BackgroundStart):
            return deferred_response(call, context, started, lambda late: _chunk_events(late, inference))
        return stream_response(StreamBody(call, _chunk_events(started, inference), started))
    whole = start(backend, route.model, inference.payload, context)
    try:
        completion = whole.to_completion()
    finally:
        whole.close()
    call.note_usage(whole.usage)
    return json_response(completion)


def respond_passthrough(
    backend: SupportsForwarding, inference: InferenceCall, call: RequestContext, context: CallContext
) -> Response:
    """Passes a call of any door on to a peer of the same protocol."""
    if not inference.is_streamed:
        result = forward(backend, inference, context)
    else:
        started = start_or_defer(lambda: forward(backend, inference, context), context)
        if isinstance(started, BackgroundStart):
            return deferred_response(call, context, started, _forwarded_events)
        result = started
    if isinstance(result, ForwardedStream):
        return stream_response(StreamBody(call, result.events, result), {**result.headers, **HEADERS})
    call.note_usage(result.usage)
    return BytesResponse(result.body, result.status, result.headers)


def _chunk_events(started: PendingAnswer, inference: InferenceCall) -> Iterator[bytes | Heartbeat]:
    return to_events(started.chunks(includes_usage=inference.wants_usage))


def _forwarded_events(result: ForwardedAnswer | ForwardedStream) -> Iterator[bytes | Heartbeat]:
    """The events of an answer whose status can no longer be told: an error becomes the error event."""
    if isinstance(result, ForwardedStream):
        return result.events
    if result.status >= 400:
        return iter([to_event(json.loads(result.body))])
    return iter([to_event(json.loads(result.body)), DONE])
