"""Passthrough of Messages calls to upstreams that have Anthropic's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from openai_compat.backends.base import Backend, SupportsMessages
from openai_compat.backends.http.messages import UpstreamRequest, UpstreamResponse
from openai_compat.backends.parsing.answer_format import check_status, detect_events
from openai_compat.backends.parsing.anthropic_errors import read_anthropic_error, to_inner_error
from openai_compat.backends.parsing.anthropic_messages import UsageReader
from openai_compat.backends.parsing.openai_chat import parse_object
from openai_compat.backends.parsing.openai_errors import find_status, is_error
from openai_compat.core.errors import UpstreamError, UpstreamInvalidResponseError
from openai_compat.core.types import CallContext, JSONObject
from openai_compat.services.answer_check import check_answer
from openai_compat.services.body_rewrite import to_upstream_body
from openai_compat.services.event_stream import CompleteAnswer
from openai_compat.services.forwarding import MAX_HEADER_CHARS, response_headers
from openai_compat.services.inference import Answer
from openai_compat.services.inference_call import MESSAGES_PATH, InferenceCall

from .relay import MessagesRelay

REQUEST_ID: Final = "request-id"
RATE_LIMIT_PREFIX: Final = "anthropic-ratelimit-"


def may_forward(backend: Backend) -> TypeGuard[SupportsMessages]:
    """Return True if calls may be passed through. Hooks and profiles are written for chat, so theirs are translated."""
    is_plain = backend.hooks is None and backend.profile is None and not backend.changes_chats
    return isinstance(backend, SupportsMessages) and is_plain


def forward_message(backend: SupportsMessages, call: InferenceCall, context: CallContext) -> Answer:
    """Pass a call on, with no change but the name of the model.

    Raises:
        UpstreamError: the upstream refused the call, gave no answer, or a broken one. CallCancelledError
    """
    response = _send(backend, call, context)
    try:
        response, is_stream = detect_events(response, is_streamed=call.is_streamed)
        if is_stream != call.is_streamed:
            if not is_stream:
                _raise_error_in(_to_object(response.read()), backend, response)
            form = "an event stream" if is_stream else "a complete message"
            raise UpstreamInvalidResponseError(f"The upstream answered with {form}, which the request did not ask for.")
        if is_stream:
            relay = MessagesRelay(response, backend, _relayed_headers(response.headers))
            relay.prime()
            return relay
        body = response.read()
    except BaseException:
        response.close()
        raise
    response.close()
    value, body, usage = check_answer(MESSAGES_PATH, body)
    _raise_error_in(value, backend, response)
    if value:
        if not value.get("stop_reason"):
            raise UpstreamInvalidResponseError("The upstream's message has no stop_reason, so it is not complete.")
        reader = UsageReader()
        reader.read(value.get("usage"))
        usage = reader.to_usage()
    return CompleteAnswer(200, {**_relayed_headers(response.headers), "content-type": "application/json"}, body, usage)


def forward_count(backend: SupportsMessages, call: InferenceCall, context: CallContext) -> CompleteAnswer:
    """Pass on a call that counts the tokens of a prompt.

    Raises:
        UpstreamError: the upstream refused the call, gave no answer, or a broken one. CallCancelledError
    """
    response = _send(backend, call, context)
    try:
        body = response.read()
    finally:
        response.close()
    value = parse_object(body)
    _raise_error_in(value, backend, response)
    if not isinstance(value.get("input_tokens"), int):
        raise UpstreamInvalidResponseError("The upstream's answer has no number of tokens.")
    return CompleteAnswer(200, {**_relayed_headers(response.headers), "content-type": "application/json"}, body)


def _send(backend: SupportsMessages, call: InferenceCall, context: CallContext) -> UpstreamResponse:
    """Send the client's bytes with the upstream's name of the model, and return a response of status 200.

    Raises:
        UpstreamStatusError: the upstream refused the call. UpstreamError, CallCancelledError
    """
    body = to_upstream_body(
        call.body, _sent_payload(call), model=backend.upstream_model or call.model, asks_for_usage=False
    )
    headers = {**context.headers, "content-type": "application/json"}
    response = backend.forward_messages(UpstreamRequest("POST", call.path, headers, body, is_repeatable=True), context)
    try:
        check_status(response.status)
        if response.status >= 400:
            raise read_anthropic_error(response)
    except BaseException:
        response.close()
        raise
    return response


def _sent_payload(call: InferenceCall) -> Mapping[str, Any]:
    """Return the payload without what this server adds to it, since counting takes no `stream`."""
    if call.path == MESSAGES_PATH:
        return call.payload
    return {name: value for name, value in call.payload.items() if name != "stream"}


def _to_object(body: bytes) -> JSONObject:
    """Return a body's JSON object, empty if it is none."""
    try:
        return parse_object(body)
    except UpstreamInvalidResponseError:
        return {}


def _raise_error_in(value: JSONObject, backend: SupportsMessages, response: UpstreamResponse) -> None:
    """Raise the error that a body of status 200 is.

    Raises:
        UpstreamError: the body is an error.
    """
    if value.get("type") == "error" or is_error(value):
        error: UpstreamError = backend.to_refusal(find_status(value)) or to_inner_error(value, response)
        raise error


def _relayed_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that the client may see. They say which request it was, and what is left of the limits."""
    own = {
        name: value
        for name, value in headers.items()
        if (name == REQUEST_ID or name.startswith(RATE_LIMIT_PREFIX)) and len(value) <= MAX_HEADER_CHARS
    }
    return response_headers(headers) | own
