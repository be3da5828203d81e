"""What the doors for chat, completions and embeddings share: from a request's bytes to a response, on one of two paths.

A backend that speaks OpenAI's protocol gets the bytes and gives bytes back; any other gets a typed request, and a
service makes OpenAI's objects of what it answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from flask import Response, request
from marshmallow import Schema
from werkzeug.exceptions import HTTPException

from ..backends.base import Backend, SupportsForwarding
from ..domain import CallContext, Usage
from ..errors import OpenAICompatError, PayloadError, UnsupportedMediaTypeError
from ..routing.table import Route, RoutingTable
from ..services.forwarding import ForwardedAnswer, ForwardedStream, InferenceCall, forward
from ..streams import SILENCE, Pending, Silence
from .calls import Call, current_call
from .payload import parse_json_object, validate
from .responses import WholeResponse, json_response
from .sse import DONE, HEADERS, Source, StreamBody, stream_response, to_error_event, to_event, to_events

JSON = dict[str, Any]
SourceT = TypeVar("SourceT", bound=Source)


class Answer(Protocol):
    """A typed answer under way: a whole object, or its chunks."""

    @property
    def usage(self) -> Usage | None: ...

    def to_completion(self) -> JSON: ...

    def chunks(self, *, includes_usage: bool) -> Iterator[JSON | Silence]: ...

    def close(self) -> None: ...


StartAnswer = Callable[[Backend, str, Mapping[str, Any], CallContext], Answer]


@dataclass(frozen=True, slots=True)
class Door:
    """One kind of inference: its `path` below an API's root, and what judges its bodies."""

    path: str
    schema: Schema


def read_payload(schema: Schema) -> tuple[bytes, JSON]:
    """The request's body, as bytes and as what they say.

    Raises:
        UnsupportedMediaTypeError, PayloadError; werkzeug's RequestEntityTooLarge
    """
    if request.mimetype not in {"application/json", ""} and not request.is_json:
        raise UnsupportedMediaTypeError(
            f"Unsupported content type: '{request.mimetype}'. This API takes JSON: send the header "
            "'Content-Type: application/json'."
        )
    body = read_body()
    current_call().log_body(body)
    return body, validate(schema, parse_json_object(body))


def read_body() -> bytes:
    """The whole body.

    Raises:
        PayloadError: it is not framed as HTTP says. werkzeug's RequestEntityTooLarge: it is too long.
    """
    environ = request.environ
    length = request.content_length
    try:
        if length is None or length > (request.max_content_length or 0) or not environ.get("wsgi.input_terminated"):
            return request.get_data(cache=False)
        body: bytes = environ["wsgi.input"].read(length)  # without the two streams that werkzeug puts around it
    except HTTPException:
        raise
    except Exception as error:  # each WSGI server has exceptions of its own for it
        raise PayloadError("The request body could not be read.") from error
    if len(body) < length:
        raise PayloadError("The request body is shorter than its Content-Length says.")
    return body


def open_door(door: Door, routing: RoutingTable, deployment: str | None) -> tuple[Call, Route, InferenceCall]:
    """The validated call and who answers it. A deployment in the path names the model, as Azure's clients do."""
    body, payload = read_payload(door.schema)
    route = routing.route(deployment or payload.get("model"))
    call = current_call()
    call.facts["model"] = route.model
    call.facts["kind"] = route.backend.entry.kind
    return call, route, InferenceCall(door.path, body, payload, route.model)


def answer(door: Door, routing: RoutingTable, start: StartAnswer, deployment: str | None) -> Response:
    """Answers a chat or completion call."""
    call, route, inference = open_door(door, routing, deployment)
    backend = route.backend
    context = call.to_context(is_streamed=inference.is_streamed)
    if isinstance(backend, SupportsForwarding):
        return answer_by_forwarding(backend, inference, call, context)
    if inference.is_streamed:
        started = begin(lambda: start(backend, route.model, inference.payload, context), context)
        if isinstance(started, Pending):
            return late_response(call, context, started, lambda late: _chunk_events(late, inference))
        return stream_response(StreamBody(call, _chunk_events(started, inference), started))
    whole = start(backend, route.model, inference.payload, context)
    try:
        completion = whole.to_completion()
    finally:
        whole.close()
    call.note_usage(whole.usage)
    return json_response(completion)


def answer_by_forwarding(
    backend: SupportsForwarding, inference: InferenceCall, call: Call, context: CallContext
) -> Response:
    """Passes a call of any door on to a peer of the same protocol."""
    if not inference.is_streamed:
        result = forward(backend, inference, context)
    else:
        started = begin(lambda: forward(backend, inference, context), context)
        if isinstance(started, Pending):
            return late_response(call, context, started, _forwarded_events)
        result = started
    if isinstance(result, ForwardedStream):
        return stream_response(StreamBody(call, result.events, result), {**result.headers, **HEADERS})
    call.note_usage(result.usage)
    return WholeResponse(result.body, result.status, result.headers)


# The first piece of a stream may take long: a model thinks, a local one is loaded. So that its failure can still have a
# status, nothing is sent before it is there; so that nothing on the way cuts the silent connection, that has an end.


def begin(start: Callable[[], SourceT], context: CallContext) -> SourceT | Pending[SourceT]:
    """What `start` starts, or the pending start when that takes longer than a client may be left without a sign."""
    if not context.silence_seconds:
        return start()
    pending = Pending(start)
    return pending.result() if pending.wait(context.silence_seconds) else pending


def late_response(
    call: Call,
    context: CallContext,
    pending: Pending[SourceT],
    to_stream: Callable[[SourceT], Iterator[bytes | Silence]],
    *,
    headers: Mapping[str, str] = HEADERS,
    to_error: Callable[[OpenAICompatError], bytes] | None = to_error_event,
) -> Response:
    """A stream that begins with comments; what `pending` comes to is told within it, an error too."""
    events = LateEvents(pending, context.silence_seconds, to_stream)
    return stream_response(StreamBody(call, events, events, to_error=to_error), headers)


class LateEvents(Iterator["bytes | Silence"], Generic[SourceT]):
    """Silence until the answer has begun, then its events. Closing it closes the answer, now or when it comes."""

    def __init__(
        self,
        pending: Pending[SourceT],
        silence_seconds: float,
        to_stream: Callable[[SourceT], Iterator[bytes | Silence]],
    ) -> None:
        self._pending = pending
        self._silence_seconds = silence_seconds
        self._to_stream = to_stream
        self._events: Iterator[bytes | Silence] | None = None
        self._has_spoken = False

    def __next__(self) -> bytes | Silence:
        if self._events is None:
            # The wait for the answer was a silence already: the first sign goes out at once.
            if not self._has_spoken or not self._pending.wait(self._silence_seconds):
                self._has_spoken = True
                return SILENCE
            self._events = self._to_stream(self._pending.result())
        return next(self._events)

    @property
    def usage(self) -> Usage | None:
        if self._events is None:
            return None
        return self._pending.result().usage

    def close(self) -> None:
        self._pending.close()


def _chunk_events(started: Answer, inference: InferenceCall) -> Iterator[bytes | Silence]:
    return to_events(started.chunks(includes_usage=inference.wants_usage))


def _forwarded_events(result: ForwardedAnswer | ForwardedStream) -> Iterator[bytes | Silence]:
    """The events of an answer whose status can no longer be told: an error becomes the error event."""
    if isinstance(result, ForwardedStream):
        return result.events
    if result.status >= 400:
        return iter([to_event(json.loads(result.body))])
    return iter([to_event(json.loads(result.body)), DONE])
