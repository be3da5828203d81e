"""Answers to inference calls by passthrough or translation, with failover where the route has it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import Any, Final

from openai_compat.backends.base import Backend, SupportsForwarding
from openai_compat.core.errors import OpenAICompatError
from openai_compat.core.observation import AttemptRecord
from openai_compat.core.streams import Heartbeat
from openai_compat.core.tokens import TokenCounter, estimate_tokens
from openai_compat.core.types import JSON, CallContext, ChatDelta, Usage
from openai_compat.routing.failover import FailoverExecutor
from openai_compat.routing.route import RoutePlan, Target
from openai_compat.routing.router import Route

from .answer import StreamingAnswer
from .continuation import Continuation
from .embeddings import EmbeddingService
from .event_stream import CompleteAnswer, EventStream
from .failover_streams import FailoverStream
from .forwarding import forward
from .inference_call import COMPLETIONS_PATH, EMBEDDINGS_PATH, InferenceCall
from .openai_objects import to_json_in_turns
from .preparation import needs_translation
from .sse_events import encode_chunks
from .stored_completions import StoredCompletions
from .stream_recovery import OnRouted, RecoveringStream

LOGPROBS_DEPTH: Final = 5
"""Levels from a completion down to the log probabilities of one token, of which there may be thousands."""
EMBEDDINGS_DEPTH: Final = 2
"""Levels from the list of embeddings down to one embedding."""

TRUNCATED_HEADER = "x-truncated-inputs"
"""Indexes of the inputs whose embeddings leave out the end of the input."""

Answer = CompleteAnswer | EventStream
StartTranslation = Callable[[Backend, str, Mapping[str, Any], CallContext], StreamingAnswer[Any]]


class Endpoint(ABC):
    """One kind of inference. A protocol adds an endpoint: a path for the passthrough, and a translation."""

    path: str
    """Path below an API's root under which an upstream of the same protocol has it."""
    is_forwarded: bool = True
    """False if the protocol is this server's own, so that every call is translated."""

    @abstractmethod
    def translate(
        self, call: InferenceCall, target: Target | Route, context: CallContext, continuation: Continuation | None
    ) -> Answer:
        """Answer by a backend that speaks another protocol. A streamed call gets an `EventStream`.

        With `continuation`, another target may continue the answer, or the target is to continue that of another.

        Raises:
            RequestError: the backend cannot do what is asked. BackendError, CallCancelledError
        """

    def stored_tokens(self) -> int:
        """Return an estimate of the input tokens that the call repeats from the store, before it is admitted."""
        return 0

    def release(self) -> None:  # noqa: B027 - most endpoints hold nothing
        """Give back what `stored_tokens` reserved, because the call was not admitted."""

    def count_tokens(self, text: str, model: str) -> int:
        """Return the number of tokens of a text that a stream has sent, when another model continues it."""
        return estimate_tokens(text)


class TranslatedStream(EventStream):
    """The events made of a backend's deltas."""

    def __init__(self, answer: StreamingAnswer[Any], events: Iterator[bytes | Heartbeat]) -> None:
        self._answer = answer
        self._events = events

    @property
    def usage(self) -> Usage | None:
        return self._answer.usage

    def __iter__(self) -> Iterator[bytes | Heartbeat]:
        return self._events

    def close(self) -> None:
        self._answer.close()


def read_deltas(
    answer: StreamingAnswer[ChatDelta], continuation: Continuation | None
) -> Iterator[ChatDelta | Heartbeat]:
    """Return the deltas of a chat answer that the client gets."""
    return answer.deltas() if continuation is None else continuation.filter_deltas(answer.deltas())


class GenerationEndpoint(Endpoint):
    """Chat completions or text completions."""

    def __init__(
        self, path: str, start: StartTranslation, tokens: TokenCounter, stored: StoredCompletions | None = None
    ) -> None:
        """Use `start` for translated calls, and `stored` to keep the answers that clients ask to store."""
        self.path = path
        self._start = start
        self._tokens = tokens
        self._stored = stored

    def count_tokens(self, text: str, model: str) -> int:
        return self._tokens.count(text, model)

    def translate(
        self, call: InferenceCall, target: Target | Route, context: CallContext, continuation: Continuation | None
    ) -> Answer:
        record = self._prepare_record(call, context)
        answer = self._start(target.backend, target.model, call.payload, context)
        if record is not None:
            answer.record_with(record)
        if call.is_streamed:
            chunks = answer.chunks(includes_usage=call.wants_usage)
            chunk_filter = None if continuation is None else continuation.filter_chunk
            return TranslatedStream(answer, encode_chunks(chunks, chunk_filter))
        try:
            completion = answer.to_completion()
            body = to_json_in_turns(completion, LOGPROBS_DEPTH if call.payload.get("logprobs") else 0)
            return CompleteAnswer(200, {}, body, answer.usage)
        finally:
            answer.close()

    def _prepare_record(self, call: InferenceCall, context: CallContext) -> Callable[[JSON], None] | None:
        """Return the function that stores the answer, or None. The client knows its id from this server only."""
        if self._stored is None or not call.payload.get("store"):
            return None
        return self._stored.prepare(call.payload, context)


class EmbeddingsEndpoint(Endpoint):
    """Embeddings, which are never streamed."""

    path = EMBEDDINGS_PATH

    def __init__(self, embeddings: EmbeddingService) -> None:
        self._embeddings = embeddings

    def translate(
        self, call: InferenceCall, target: Target | Route, context: CallContext, continuation: Continuation | None
    ) -> Answer:
        vectors, usage, truncated = self._embeddings.create(target.backend, target.model, call.payload, context)
        headers = {TRUNCATED_HEADER: ",".join(map(str, truncated))} if truncated else {}
        return CompleteAnswer(200, headers, to_json_in_turns(vectors, EMBEDDINGS_DEPTH), usage)


def answer_call(
    endpoint: Endpoint,
    route: Route,
    call: InferenceCall,
    context: CallContext,
    on_routed: OnRouted,
) -> Answer:
    """Answer a call by the route's backend, or by the first of its targets that has an answer.

    `on_routed` gets the executor once the attempts of a route with several targets or tries are over, and again after
    another target continued a stream.

    Raises:
        UpstreamRefusalError: an upstream refused the call. OpenAICompatError
    """
    if route.plan is None:
        return _ask_single(endpoint, call, route.target or route, context)
    failover: FailoverExecutor[Any] = FailoverExecutor(
        route.plan, context, limits_first_token=call.is_streamed, may_repeat=call.may_repeat
    )
    try:
        return _answer_with_failover(endpoint, route.plan, call, context, failover, on_routed)
    finally:
        on_routed(failover)


def _ask_single(endpoint: Endpoint, call: InferenceCall, target: Target | Route, context: CallContext) -> Answer:
    """Ask the only target of a route, and record the attempt."""
    record = AttemptRecord(target.model, perf_counter())
    if context.trace is not None:
        record.span_id = context.trace.attempt_id
    context.attempts.append(record)
    try:
        answer = _ask(endpoint, call, target, context)
    except OpenAICompatError as error:
        record.error = error.code or error.type
        record.ended_at = perf_counter()
        raise
    record.first_byte_at = perf_counter()
    return answer


def _ask(
    endpoint: Endpoint,
    call: InferenceCall,
    target: Target | Route,
    context: CallContext,
    continuation: Continuation | None = None,
) -> Answer:
    """Ask one backend. Here, and nowhere else, a call is forwarded or translated."""
    backend = target.backend
    if continuation is not None and endpoint.is_forwarded:
        call = continuation.to_call(call, target.model)
    if endpoint.is_forwarded and isinstance(backend, SupportsForwarding) and not needs_translation(backend, call):
        chunk_filter = None if continuation is None else continuation.filter_chunk
        return forward(backend, call.for_model(target.model), context, chunk_filter)
    return endpoint.translate(call, target, context, continuation)


def _answer_with_failover(
    endpoint: Endpoint,
    plan: RoutePlan,
    call: InferenceCall,
    context: CallContext,
    failover: FailoverExecutor[Any],
    on_routed: OnRouted,
) -> Answer:
    if call.is_streamed and plan.policy.on_stream_break == "continue":
        continuation = Continuation(endpoint.count_tokens, is_prompt=call.path == COMPLETIONS_PATH)

        def open_stream(target: Target, context: CallContext) -> EventStream:
            answer = _ask(endpoint, call, target, context, continuation)
            assert isinstance(answer, EventStream)  # noqa: S101 - a streamed call gets one
            return answer

        return RecoveringStream(failover, continuation, open_stream, context, on_routed=on_routed)
    attempt = failover.run(lambda target, context: _ask(endpoint, call, target, context))
    if isinstance(attempt.result, EventStream):
        return FailoverStream(attempt)
    answer: CompleteAnswer = attempt.result
    attempt.record_success()
    attempt.close()
    return answer
