"""Passthrough to upstreams that speak the client's protocol.

Bytes go in and bytes come out, while the usage and the end of the answer are observed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from openai_compat.backends.base import SupportsForwarding
from openai_compat.backends.http.messages import UpstreamRequest, UpstreamResponse
from openai_compat.backends.parsing.answer_format import check_status, detect_events
from openai_compat.backends.parsing.openai_chat import parse_object
from openai_compat.backends.parsing.openai_errors import (
    find_status,
    is_error_answer,
    refuses_stream_options,
    to_envelope_bytes,
    to_error_object,
    to_status_error,
)
from openai_compat.core.errors import UpstreamError, UpstreamStatusError
from openai_compat.core.hooks import Hooks
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import CallContext, Usage

from .answer_check import check_answer, check_may_stream
from .body_rewrite import to_body, to_upstream_body
from .completion_chunks import CompletionCollector, check_completion, to_chunks
from .embeddings import encode_vectors
from .event_stream import JSON, ChunkFilter, CompleteAnswer, EventStream
from .inference_call import EMBEDDINGS_PATH, InferenceCall
from .openai_objects import to_json
from .preparation import prepare_call
from .sse_events import encode_chunks
from .sse_relay import SSERelay

log = logging.getLogger(__name__)

RELAYED_HEADERS: Final = frozenset(
    {"content-type", "x-request-id", "retry-after", "retry-after-ms", "x-should-retry", "x-truncated-inputs"}
)
RELAYED_PREFIXES: Final = ("x-ratelimit-", "openai-")
MAX_HEADER_CHARS: Final = 2048
FILE_HEADERS: Final = frozenset(
    {
        "content-disposition",
        "content-encoding",
        "content-length",
        "content-range",
        "accept-ranges",
        "etag",
        "last-modified",
        "location",
    }
)
"""Also relayed where any kind of content may pass."""


class UpstreamRefusalError(UpstreamStatusError):
    """An upstream's refusal. `answer` is what it sent, ready to be passed on."""

    def __init__(self, answer: CompleteAnswer) -> None:
        error = to_error_object(answer.status, answer.body)
        super().__init__(
            error["message"],
            upstream_status=answer.status,
            type_=error["type"],
            param=error["param"],
            code=error["code"],
            headers=answer.headers,
        )
        self.answer = answer


class CompletionStream(EventStream):
    """The stream made of a complete answer, for an upstream that ignores the parameter `stream`."""

    def __init__(self, answer: CompleteAnswer, call: InferenceCall, chunk_filter: ChunkFilter | None) -> None:
        self.headers = {name: value for name, value in answer.headers.items() if name != "content-type"}
        self._usage = answer.usage
        completion = parse_object(answer.body)
        check_completion(completion)
        chunks = to_chunks(completion, includes_usage=call.wants_usage)
        self._events = encode_chunks(chunks, chunk_filter)

    @property
    def usage(self) -> Usage | None:
        return self._usage

    def __iter__(self) -> Iterator[bytes | Heartbeat]:
        return self._events

    def close(self) -> None:
        """Do nothing. The answer was read before the stream was made."""


def forward(
    backend: SupportsForwarding, call: InferenceCall, context: CallContext, chunk_filter: ChunkFilter | None = None
) -> CompleteAnswer | EventStream:
    """Pass a call on to an upstream that speaks the client's protocol. A streamed call gets an `EventStream`.

    An answer that is no event stream is read whole before it is returned, so a truncated one is an error.

    Raises:
        UpstreamRefusalError: the upstream answered with a status of 400 or above.
        UpstreamError: no answer, a broken one, or one that refuses this server's own credential.
        CallCancelledError
    """
    if backend.profile is not None or backend.hooks is not None:
        call = prepare_call(backend, call, context)
    asks_for_usage = call.is_streamed and not call.wants_usage and backend.may_request_usage(call.model)
    answer = _forward(backend, call, context, chunk_filter, asks_for_usage=asks_for_usage)
    if isinstance(answer, EventStream):
        return answer
    if answer.status >= 400:
        raise UpstreamRefusalError(answer)
    if backend.hooks is not None:
        answer = apply_reply_hook(backend.hooks, answer, call.model, context)
    return CompletionStream(answer, call, chunk_filter) if call.is_streamed else answer


def apply_reply_hook(hooks: Hooks, answer: CompleteAnswer, model: str, context: CallContext) -> CompleteAnswer:
    """Return a complete answer as the model's `after_reply` hook leaves it.

    Raises:
        UpstreamInvalidResponseError: it is no JSON object. OpenAICompatError: the hook's own.
    """
    if hooks.after_reply is None:
        return answer
    changed = hooks.run_after_reply(dict(parse_object(answer.body)), model, context)
    return replace(answer, body=to_body(changed))


def _forward(
    backend: SupportsForwarding,
    call: InferenceCall,
    context: CallContext,
    chunk_filter: ChunkFilter | None,
    *,
    asks_for_usage: bool,
) -> CompleteAnswer | EventStream:
    response = _send(backend, call, context, asks_for_usage=asks_for_usage)
    try:
        check_status(response.status)
        if response.status < 400:
            response, is_stream = detect_events(response, is_streamed=call.is_streamed)
            if is_stream:
                return _relay(backend, response, call, chunk_filter, strip_usage=asks_for_usage)
        body = response.read()
    except BaseException:
        response.close()
        raise
    response.close()
    if response.status < 400:
        return _to_complete_answer(backend, response, call, body)
    if asks_for_usage and refuses_stream_options(response.status, body):
        # This server added the parameter that the upstream refuses, so the client must not see the refusal.
        log.info("the upstream refuses stream_options for '%s': `stream_usage: false` saves asking", call.model)
        answer = _forward(backend, call, context, chunk_filter, asks_for_usage=False)
        if isinstance(answer, EventStream) or answer.status < 400:
            backend.mark_usage_unsupported(call.model)
        return answer
    return to_answer(response, body)


def _relay(
    backend: SupportsForwarding,
    response: UpstreamResponse,
    call: InferenceCall,
    chunk_filter: ChunkFilter | None,
    *,
    strip_usage: bool,
) -> CompleteAnswer | EventStream:
    """Return the events of a streamed call, primed, or the completion that they make for any other call."""
    check_may_stream(call.path)
    collector = None if call.is_streamed else CompletionCollector()
    headers = response_headers(response.headers)
    relay = SSERelay(
        response,
        strip_usage=strip_usage,
        choices=call.choices,
        headers=headers,
        chunk_filter=chunk_filter if collector is None else collector.add,
        to_error=partial(to_stream_error, backend, response),
    )
    if collector is None:
        relay.prime()
        return relay
    for _ in relay:
        pass
    relay.close()
    completion = collector.to_completion()
    check_completion(completion)
    return CompleteAnswer(200, {**headers, "content-type": "application/json"}, to_json(completion), relay.usage)


def _to_complete_answer(
    backend: SupportsForwarding, response: UpstreamResponse, call: InferenceCall, body: bytes
) -> CompleteAnswer:
    """Return a complete answer, once its body has been checked.

    Raises:
        UpstreamRefusalError: the body is an error object. It gets the status that its code or type stands for.
        UpstreamAuthenticationError: the error concerns this server's own credential.
        UpstreamInvalidResponseError: the body is no answer to the call.
    """
    value, checked, usage = check_answer(call.path, body)
    if is_error_answer(value):
        status = find_status(value) or 502
        if (refusal := backend.to_refusal(status)) is not None:
            raise refusal
        error = UpstreamRefusalError(to_answer(response, response.redact(body), status=status))
        error.is_within_answer = True
        raise error
    if call.path == EMBEDDINGS_PATH and call.payload.get("encoding_format") == "base64":
        checked = encode_vectors(checked)
    headers = {**response_headers(response.headers), "content-type": "application/json"}
    return CompleteAnswer(response.status, headers, checked, usage)


def to_stream_error(backend: SupportsForwarding, response: UpstreamResponse, chunk: JSON) -> UpstreamError:
    """Return the error that an event of an upstream carries."""
    status = find_status(chunk) or 502
    if (refusal := backend.to_refusal(status)) is not None:
        return refusal
    error = to_status_error(status, response.redact(json.dumps(chunk).encode()))
    error.is_within_answer = True
    return error


def _send(
    backend: SupportsForwarding, call: InferenceCall, context: CallContext, *, asks_for_usage: bool
) -> UpstreamResponse:
    model = backend.upstream_model or call.model
    body = to_upstream_body(call.body, call.payload, model=model, asks_for_usage=asks_for_usage)
    headers = {**context.headers, "content-type": "application/json"}
    is_repeatable = not call.payload.get("store")
    return backend.forward(UpstreamRequest("POST", call.path, headers, body, is_repeatable=is_repeatable), context)


def to_answer(
    response: UpstreamResponse, body: bytes, more: frozenset[str] = frozenset(), status: int | None = None
) -> CompleteAnswer:
    """Return a response that was read whole, unchanged. An error that is not in OpenAI's envelope is put into it.

    `status` replaces that of the response.
    """
    status = status or response.status
    if status < 400:
        return CompleteAnswer(status, response_headers(response.headers, more), body)
    headers = {**response_headers(response.headers), "content-type": "application/json"}
    return CompleteAnswer(status, headers, to_envelope_bytes(status, body))


def response_headers(headers: Mapping[str, str], more: frozenset[str] = frozenset()) -> dict[str, str]:
    """Return the upstream's headers that the client may see. It is an allow-list, so no cookie or secret passes.

    Values above `MAX_HEADER_CHARS` are dropped, because proxies refuse responses with large headers.
    """
    return {
        name: value
        for name, value in headers.items()
        if (name in RELAYED_HEADERS or name in more or name.startswith(RELAYED_PREFIXES))
        and len(value) <= MAX_HEADER_CHARS
    }


class ForwardedBody(Iterator["bytes | Heartbeat"]):
    """The bytes of a response of any kind, as they arrive. `close()` reaches the upstream even before the first."""

    def __init__(self, response: UpstreamResponse) -> None:
        self._response = response
        self._blocks = response.blocks()

    def __next__(self) -> bytes | Heartbeat:
        return next(self._blocks)

    def close(self) -> None:
        self._response.close()


def pass_through(
    backend: SupportsForwarding, request: UpstreamRequest, context: CallContext
) -> tuple[UpstreamResponse, ForwardedBody]:
    """Send any other request of the API on, such as files and images. The response passes as it arrives.

    Raises:
        UpstreamError, CallCancelledError: before there is a response.
    """
    response = backend.forward(request, context)
    return response, ForwardedBody(response)
