"""Calls to a peer that speaks OpenAI's protocol: its bytes, its status, its errors, and a look at the usage."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from openai_compat.backends.base import SupportsForwarding
from openai_compat.backends.http.messages import UpstreamRequest, UpstreamResponse
from openai_compat.backends.parsing.openai_chat import parse_object, read_usage
from openai_compat.backends.parsing.openai_errors import refuses_stream_options, to_envelope_bytes, to_error_object
from openai_compat.core.errors import UpstreamInvalidResponseError, UpstreamStatusError
from openai_compat.core.hooks import Hooks
from openai_compat.core.streams import Heartbeat, PrimedStream
from openai_compat.core.types import CallContext, Usage

from .body_rewrite import to_body, to_upstream_body
from .inference_call import InferenceCall
from .preparation import prepare_call
from .sse_relay import SSERelay

log = logging.getLogger(__name__)

RELAYED_HEADERS: Final = frozenset(
    {"content-type", "x-request-id", "retry-after", "retry-after-ms", "x-should-retry", "x-truncated-inputs"}
)
RELAYED_PREFIXES: Final = ("x-ratelimit-", "openai-")
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
"""Relayed besides, where any kind of content may pass through."""

USAGE_TAIL_BYTES: Final = 4096
MAX_PARSED_BYTES: Final = 65_536
# White space before an answer keeps a connection alive while the model works: some providers send a lot of it.
_OBJECT_START = re.compile(rb"\s*\{")
_OBJECT_END = re.compile(rb"\}\s*\Z")


@dataclass(frozen=True, slots=True)
class ForwardedAnswer:
    """A whole answer, to be sent as it is."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    usage: Usage | None = None

    def close(self) -> None:
        """Nothing is open any more."""


@dataclass(frozen=True, slots=True)
class ForwardedStream:
    """A stream that has begun; `relay` knows the usage at its end."""

    status: int
    headers: Mapping[str, str]
    events: PrimedStream[bytes | Heartbeat]
    relay: SSERelay

    @property
    def usage(self) -> Usage | None:
        return self.relay.usage

    @property
    def has_failed(self) -> bool:
        """Whether the upstream has told of an error within the stream."""
        return self.relay.has_failed

    def close(self) -> None:
        self.relay.close()


class UpstreamRefusalError(UpstreamStatusError):
    """An upstream's refusal as an exception, for whoever may do better elsewhere; `answer` is what it sent."""

    def __init__(self, answer: ForwardedAnswer) -> None:
        told = to_error_object(answer.status, answer.body)
        super().__init__(
            told["message"],
            upstream_status=answer.status,
            type_=told["type"],
            param=told["param"],
            code=told["code"],
            headers=answer.headers,
        )
        self.answer = answer


def forward_or_raise(
    backend: SupportsForwarding, call: InferenceCall, context: CallContext
) -> ForwardedAnswer | ForwardedStream:
    """`forward`, with refusals raised like all other failures.

    Raises:
        ForwardedRefusalError; and what `forward` raises.
    """
    result = forward(backend, call, context)
    if isinstance(result, ForwardedAnswer) and result.status >= 400:
        raise UpstreamRefusalError(result)
    return result


def forward(
    backend: SupportsForwarding, call: InferenceCall, context: CallContext
) -> ForwardedAnswer | ForwardedStream:
    """Passes a call on. Whatever its status, an answer that is no event stream is read whole before it is returned,
    so that one that breaks off is an error and not half an answer.

    Raises:
        UpstreamError: no answer, a broken one, or one that refuses the server's own credential.
        CallCancelledError
    """
    if backend.profile is not None or backend.hooks is not None:
        call = prepare_call(backend, call, context)
    asks_for_usage = call.is_streamed and not call.wants_usage and backend.may_request_usage(call.model)
    answer = _forward(backend, call, context, asks_for_usage=asks_for_usage)
    if backend.hooks is not None and isinstance(answer, ForwardedAnswer) and answer.status < 400:
        return apply_reply_hook(backend.hooks, answer, call.model, context)
    return answer


def apply_reply_hook(hooks: Hooks, answer: ForwardedAnswer, model: str, context: CallContext) -> ForwardedAnswer:
    """A whole answer as the model's hook leaves it.

    Raises:
        UpstreamReplyError: it is no JSON object. OpenAICompatError: the hook's own.
    """
    if hooks.after_reply is None:
        return answer
    changed = hooks.run_after_reply(dict(parse_object(answer.body)), model, context)
    return replace(answer, body=to_body(changed))


def _forward(
    backend: SupportsForwarding, call: InferenceCall, context: CallContext, *, asks_for_usage: bool
) -> ForwardedAnswer | ForwardedStream:
    reply = _send(backend, call, context, asks_for_usage=asks_for_usage)
    try:
        if reply.status < 400 and call.is_streamed and _is_event_stream(reply):
            return _to_stream(reply, SSERelay(reply, strip_usage=asks_for_usage, choices=call.choices))
        if 300 <= reply.status < 400:
            raise UpstreamInvalidResponseError(
                "The upstream answered with a redirect, which is not followed: mend its base_url."
            )
        body = reply.read()
    except BaseException:
        reply.close()
        raise
    reply.close()
    if asks_for_usage and refuses_stream_options(reply.status, body):
        # It was this server that put the refused parameter in, so the client must not hear of it.
        log.info("the upstream refuses stream_options for '%s': `stream_usage: false` saves asking", call.model)
        answer = _forward(backend, call, context, asks_for_usage=False)
        if answer.status < 400:
            backend.mark_usage_unsupported(call.model)
        return answer
    if reply.status < 400 and reply.headers.get("content-type", "").lower().startswith("application/json"):
        return ForwardedAnswer(reply.status, response_headers(reply.headers), body, validate_json_body(body))
    return to_answer(reply, body)


def validate_json_body(body: bytes) -> Usage | None:
    """The usage in an answer of JSON, which must be whole: most likely one that is not has lost its end.

    A long one is judged by its ends alone: parsing megabytes would hold up every other call.

    Raises:
        UpstreamReplyError
    """
    try:
        if len(body) <= MAX_PARSED_BYTES:
            return read_usage(json.loads(body).get("usage"))
        if _OBJECT_START.match(body) and _OBJECT_END.search(body, max(len(body) - USAGE_TAIL_BYTES, 0)):
            return find_usage(body)
    except (ValueError, RecursionError, AttributeError) as error:
        raise UpstreamInvalidResponseError("The upstream's answer is not a whole JSON object.") from error
    raise UpstreamInvalidResponseError("The upstream's answer is not a whole JSON object.")


def _send(
    backend: SupportsForwarding, call: InferenceCall, context: CallContext, *, asks_for_usage: bool
) -> UpstreamResponse:
    model = backend.upstream_model or call.model
    body = to_upstream_body(call.body, call.payload, model=model, asks_for_usage=asks_for_usage)
    headers = {**context.headers, "content-type": "application/json"}
    return backend.forward(UpstreamRequest("POST", call.path, headers, body), context)


def _is_event_stream(reply: UpstreamResponse) -> bool:
    return reply.headers.get("content-type", "").lower().startswith("text/event-stream")


def _to_stream(reply: UpstreamResponse, relay: SSERelay) -> ForwardedStream:
    return ForwardedStream(reply.status, response_headers(reply.headers), PrimedStream(relay), relay)


def to_answer(reply: UpstreamResponse, body: bytes, more: frozenset[str] = frozenset()) -> ForwardedAnswer:
    """A reply that was read whole, ready to be sent: untouched, but for an error that does not wear the envelope."""
    if reply.status < 400:
        return ForwardedAnswer(reply.status, response_headers(reply.headers, more), body)
    headers = response_headers(reply.headers)
    envelope = to_envelope_bytes(reply.status, body)
    if envelope is not body:
        headers["content-type"] = "application/json"
    return ForwardedAnswer(reply.status, headers, envelope)


def find_usage(body: bytes) -> Usage | None:
    """The usage of a long answer, read without parsing the rest: it stands near the end."""
    at = body.rfind(b'"usage"')
    start = body.find(b"{", at) if at >= 0 else -1
    if start < 0:
        return None
    try:
        text = body[start : start + USAGE_TAIL_BYTES].decode("utf-8", "replace")
        return read_usage(json.JSONDecoder().raw_decode(text)[0])
    except (ValueError, RecursionError):
        return None


def response_headers(headers: Mapping[str, str], more: frozenset[str] = frozenset()) -> dict[str, str]:
    """Those of an upstream's headers that are for the client: an allow-list, so that no cookie or secret gets out."""
    return {
        name: value
        for name, value in headers.items()
        if name in RELAYED_HEADERS or name in more or name.startswith(RELAYED_PREFIXES)
    }


class ForwardedBody(Iterator["bytes | Heartbeat"]):
    """The bytes of an answer of any kind, as they come; `close()` reaches the upstream even before the first."""

    def __init__(self, reply: UpstreamResponse) -> None:
        self._reply = reply
        self._blocks = reply.blocks()

    def __next__(self) -> bytes | Heartbeat:
        return next(self._blocks)

    def close(self) -> None:
        self._reply.close()


def pass_through(
    backend: SupportsForwarding, call: UpstreamRequest, context: CallContext
) -> tuple[UpstreamResponse, ForwardedBody]:
    """Any other call of the API: files, images, audio, batches; whatever comes back, as it comes.

    Raises:
        UpstreamError, CallCancelledError: before there is an answer.
    """
    reply = backend.forward(call, context)
    return reply, ForwardedBody(reply)
