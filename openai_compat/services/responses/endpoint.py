"""The Responses API for every model that can chat."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeGuard

from openai_compat.backends.base import Backend, SupportsForwarding
from openai_compat.core.errors import OpenAICompatError
from openai_compat.core.profiles import record_adaptations
from openai_compat.core.types import JSON, CallContext
from openai_compat.routing.route import Target
from openai_compat.routing.router import Route
from openai_compat.services.chat import ChatAnswer, ChatService, complete_deltas
from openai_compat.services.continuation import Continuation
from openai_compat.services.event_stream import CompleteAnswer
from openai_compat.services.inference import Answer, Endpoint, TranslatedStream, answer_call, read_deltas
from openai_compat.services.inference_call import RESPONSES_PATH, InferenceCall
from openai_compat.services.openai_objects import new_id, to_json
from openai_compat.services.owner import owner_of
from openai_compat.services.sse_events import to_event
from openai_compat.services.stream_recovery import OnRouted, RecoveringStream

from .background import BackgroundEnd, BackgroundJob, BackgroundRunner
from .events import EventWriter, encode_response
from .lifecycle import COMMENT, Lifecycle
from .native import forward_response
from .objects import new_response, to_finished
from .output import REASONING_TEXT, SUMMARY_TEXT, Output, Seal
from .request import ENCRYPTED_REASONING, LOGPROBS, TranslatedRequest, includes, translate_request, wants_summary
from .sealing import ReasoningSealer
from .state import CallState, LockedStream
from .store import ResponseStore


@dataclass(frozen=True, slots=True)
class ResponsesService:
    """What all calls of the Responses API share."""

    chats: ChatService
    store: ResponseStore
    sealer: ReasoningSealer
    runner: BackgroundRunner


class Handover(Protocol):
    """What a request gives to the background response that goes on with its work."""

    def end(self, end: BackgroundEnd) -> None:
        """Release it."""


class TranslationNeededError(Exception):
    """No upstream takes a background call, so that it is to be run here."""


class ResponsesEndpoint(Endpoint):
    """One call of the Responses API, which several targets may be asked in turn."""

    path = RESPONSES_PATH
    is_forwarded = False

    def __init__(self, service: ResponsesService, route: Route, call: InferenceCall, caller: str | None) -> None:
        """Use and make objects of `caller`, which is a credential."""
        self.service = service
        self.is_background = call.payload.get("background") is True
        self.finished: JSON | None = None
        self._request: TranslatedRequest | None = None
        self._writer: EventWriter | None = None
        self.state = CallState(service.store, call.payload, owner_of(caller))
        response = new_response(new_id("resp_"), call.model, call.payload, is_stored=self.state.is_stored)
        self.may_forward = may_forward_any(route)
        self.lifecycle = Lifecycle(response, begins_early=not (self.may_forward or self.is_background))

    def stored_tokens(self) -> int:
        return self.state.stored_tokens(may_forward=self.may_forward)

    def release(self) -> None:
        self.state.release()

    def count_tokens(self, text: str, model: str) -> int:
        return self.service.chats.tokens.count(text, model)

    def translate(
        self, call: InferenceCall, target: Target | Route, context: CallContext, continuation: Continuation | None
    ) -> Answer:
        if may_forward(target.backend) and self._is_forwardable():
            forwarded = forward_response(target.backend, call.for_model(target.model), context, self.lifecycle)
            if forwarded is not None:
                return forwarded
        if self.is_background and not self.lifecycle.has_begun:
            raise TranslationNeededError
        request = self.to_request(call)
        record_adaptations({**request.adaptations, **self.state.adaptations}, context.reply_headers)
        chat = request.chat if continuation is None else continuation.to_request(request.chat, target.model)
        answer = self.service.chats.start(target.backend, target.model, chat, context)
        if call.is_streamed:
            self._writer = self._writer or self._to_writer(call, request)
            finish = partial(self._finish_stream, self._writer, answer)
            deltas, interval = read_deltas(answer, continuation), context.heartbeat_interval
            return TranslatedStream(answer, encode_response(self._writer, self.lifecycle, deltas, finish, interval))
        try:
            return CompleteAnswer(200, {}, to_json(self._collect(call, request, answer)), answer.usage)
        finally:
            answer.close()

    def _is_forwardable(self) -> bool:
        """Return False for a call that has begun here, or that refers to objects of this server."""
        return not (self.lifecycle.has_begun or self.state.uses_own_objects())

    def to_request(self, call: InferenceCall) -> TranslatedRequest:
        """Return the chat call, which is made once for all targets.

        Raises:
            RequestError, StorageUnavailableError
        """
        if self._request is None:
            open_reasoning = partial(self.service.sealer.read, model=call.model)
            request = translate_request(call.payload, self.state.stored, self.state.input, open_reasoning)
            self.state.prepare()
            self._request = request
        return self._request

    def release_request(self) -> None:
        """Forget the request once its stream has begun, because it may be large and the stream long."""
        self._request = None
        self.state.release_request()

    def _to_writer(self, call: InferenceCall, request: TranslatedRequest) -> EventWriter:
        """Return the writer of the events, which is the same for all targets that answer a part."""
        return EventWriter(
            self.lifecycle,
            request.tools,
            SUMMARY_TEXT if wants_summary(call.payload) else REASONING_TEXT,
            self._seal_for(call),
            shows_logprobs=includes(call.payload, LOGPROBS),
        )

    def _collect(self, call: InferenceCall, request: TranslatedRequest, answer: ChatAnswer) -> Mapping[str, Any]:
        """Return the response object of a call that is not streamed."""
        output = Output(
            request.tools,
            SUMMARY_TEXT if wants_summary(call.payload) else REASONING_TEXT,
            self._seal_for(call),
            shows_logprobs=includes(call.payload, LOGPROBS),
        )
        for delta in complete_deltas(answer):
            output.add(delta)
        output.finish()
        return self._finish(output, answer)

    def to_finished(self) -> JSON:
        """Return the response that has ended, once the answer was read to its end."""
        assert self.finished is not None  # noqa: S101 - the end of an answer sets it
        return self.finished

    def keep_alive(self) -> bytes:
        """Return what fills an idle gap. The events of a background response are those that are stored."""
        return COMMENT if self.is_background else self.lifecycle.keep_alive()

    def fail(self, error: OpenAICompatError) -> bytes:
        """Return the events for a failure, which in the background is one of reading the stored events."""
        return to_event(error.to_envelope()) if self.is_background else self.lifecycle.fail(error)

    def _seal_for(self, call: InferenceCall) -> Seal | None:
        """Return the function that seals reasoning, or None if the client did not ask for it."""
        if not includes(call.payload, ENCRYPTED_REASONING):
            return None
        return partial(self.service.sealer.seal, model=call.model)

    def _finish(self, output: Output, answer: ChatAnswer) -> JSON:
        """Return the response that has ended."""
        usage = answer.final_usage()
        self.finished = to_finished(self.lifecycle.response, output.to_objects(), output.finish_reason, usage)
        return self.finished

    def _finish_stream(self, output: Output, answer: ChatAnswer) -> bytes:
        """Return the last event, once the response is stored. A background job stores it together with its end."""
        response = self._finish(output, answer)
        body = to_json(response)
        if not self.is_background:
            self.state.keep(response, body)
        return self.lifecycle.end(response["status"], body)


def answer_response(
    endpoint: ResponsesEndpoint, route: Route, call: InferenceCall, context: CallContext, on_routed: OnRouted
) -> Answer:
    """Answer a call as `answer_call` does, and keep a complete answer before the client gets it.

    It is stored after the failover, so that no other target is asked because the database is away.
    """
    try:
        answer = answer_call(endpoint, route, call, context, on_routed)
        if isinstance(answer, CompleteAnswer):
            if endpoint.finished is not None:  # a translated call's
                endpoint.state.keep(endpoint.finished, answer.body)
            return answer
    except BaseException:
        endpoint.state.release()
        raise
    if not isinstance(answer, RecoveringStream):  # it may ask further targets
        endpoint.release_request()
    return LockedStream(answer, endpoint.state) if endpoint.state.is_locked else answer


def answer_in_background(
    hand_over: Callable[[], Handover],
    endpoint: ResponsesEndpoint,
    route: Route,
    call: InferenceCall,
    context: CallContext,
    on_routed: OnRouted,
) -> Answer:
    """Let an upstream answer in the background if it can, and otherwise start to answer here.

    `hand_over` gives the background response what the request would release at its end.
    """
    if endpoint.may_forward:
        with suppress(TranslationNeededError):
            return answer_call(endpoint, route, call, context, on_routed)
    start = partial(answer_call, endpoint, route, call, on_routed=_ignore)
    store, state = endpoint.service.store, endpoint.state
    job = BackgroundJob(store, state, endpoint.lifecycle, start, endpoint.to_finished, is_streamed=call.is_streamed)
    try:
        record_adaptations(endpoint.to_request(call).adaptations, context.reply_headers)
        response = job.queue()
    except BaseException:
        state.release()
        raise
    endpoint.service.runner.start(job, context, hand_over().end)
    if not call.is_streamed:
        return CompleteAnswer(200, {}, to_json(response))
    return store.follow(state.owner, job.id, -1, context)


def _ignore(failover: object) -> None:
    """Do nothing, as the response headers with the target were sent when the job began."""


def _backends_of(route: Route) -> Iterator[Backend]:
    """Yield the backends that may be asked."""
    if route.plan is None:
        yield route.backend
    else:
        yield from (target.backend for target in (*route.plan.targets.values(), *route.plan.fallbacks))


def may_forward_any(route: Route) -> bool:
    """Return True if calls may be passed through to an upstream of the route."""
    return any(map(may_forward, _backends_of(route)))


def may_forward(backend: Backend) -> TypeGuard[SupportsForwarding]:
    """Return True if calls may be passed through to the backend's upstream."""
    return isinstance(backend, SupportsForwarding) and backend.may_forward_responses()
