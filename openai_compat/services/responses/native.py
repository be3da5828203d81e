"""Passthrough of Responses calls to upstreams that have the endpoint."""

from __future__ import annotations

import json

from openai_compat.backends.base import SupportsForwarding
from openai_compat.backends.http.messages import UpstreamRequest, UpstreamResponse
from openai_compat.backends.parsing.answer_format import check_status, detect_events
from openai_compat.backends.parsing.openai_errors import find_status
from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.types import CallContext
from openai_compat.services.answer_check import check_answer
from openai_compat.services.body_rewrite import to_upstream_body
from openai_compat.services.event_stream import CompleteAnswer
from openai_compat.services.forwarding import UpstreamRefusalError, response_headers, to_answer
from openai_compat.services.inference import Answer
from openai_compat.services.inference_call import RESPONSES_PATH, InferenceCall

from .lifecycle import Lifecycle
from .relay import ResponsesRelay


def forward_response(
    backend: SupportsForwarding, call: InferenceCall, context: CallContext, lifecycle: Lifecycle
) -> Answer | None:
    """Pass a call on, and return None if the upstream has no such endpoint and the call is to be translated.

    Raises:
        UpstreamRefusalError: the upstream answered with a status of 400 or above.
        UpstreamError: no answer, or a broken one. CallCancelledError
    """
    response = _send(backend, call, context)
    try:
        check_status(response.status)
        if response.status < 400:
            response, is_stream = detect_events(response, is_streamed=call.is_streamed)
            _check_form(call, is_stream=is_stream)
            if is_stream:
                relay = ResponsesRelay(response, backend, lifecycle, response_headers(response.headers))
                relay.prime()
                return relay
        body = response.read()
    except BaseException:
        response.close()
        raise
    response.close()
    if response.status < 400:
        return _to_complete_answer(response, body)
    if is_unknown_endpoint(response.status, body) and backend.mark_responses_missing():
        return None
    raise UpstreamRefusalError(to_answer(response, body))


def forward_complete(backend: SupportsForwarding, call: InferenceCall, context: CallContext) -> CompleteAnswer | None:
    """Pass on a call that one JSON object answers, and return None if the upstream has no such endpoint.

    Raises:
        UpstreamRefusalError: the upstream answered with a status of 400 or above.
        UpstreamError: no answer, or a broken one. CallCancelledError
    """
    response = _send(backend, call, context)
    try:
        check_status(response.status)
        body = response.read()
    finally:
        response.close()
    if response.status >= 400:
        if is_unknown_endpoint(response.status, body):
            return None
        raise UpstreamRefusalError(to_answer(response, body))
    if not body.lstrip().startswith(b"{"):
        raise UpstreamInvalidResponseError("The upstream's answer is no JSON object.")
    return to_answer(response, body)


def _send(backend: SupportsForwarding, call: InferenceCall, context: CallContext) -> UpstreamResponse:
    """Send the client's bytes with the upstream's name of the model. A call without a model is sent unchanged."""
    model = backend.upstream_model or call.model
    body = to_upstream_body(call.body, call.payload, model=model, asks_for_usage=False) if model else call.body
    headers = {**context.headers, "content-type": "application/json"}
    is_repeatable = call.payload.get("store") is False
    return backend.forward(UpstreamRequest("POST", call.path, headers, body, is_repeatable=is_repeatable), context)


def _check_form(call: InferenceCall, *, is_stream: bool) -> None:
    """Raise `UpstreamInvalidResponseError` for a stream that was not asked for, or a complete answer in its place."""
    if is_stream != call.is_streamed:
        form = "an event stream" if is_stream else "a complete response"
        raise UpstreamInvalidResponseError(f"The upstream answered with {form}, which the request did not ask for.")


def _to_complete_answer(response: UpstreamResponse, body: bytes) -> CompleteAnswer:
    """Return a complete answer, also one whose `status` is `failed`, which the client is to see as it is.

    Raises:
        UpstreamRefusalError: the body is an error object. UpstreamInvalidResponseError: it is no response.
    """
    value, checked, usage = check_answer(RESPONSES_PATH, body)
    if value and not isinstance(value.get("output"), list):
        error = UpstreamRefusalError(to_answer(response, body, status=find_status(value) or 502))
        error.is_within_answer = True
        raise error
    headers = {**response_headers(response.headers), "content-type": "application/json"}
    return CompleteAnswer(response.status, headers, checked, usage)


def is_unknown_endpoint(status: int, body: bytes) -> bool:
    """Return True if a refusal says that the upstream has no endpoint for responses.

    A 404 may also say that the model or an item is unknown. Then it names the parameter, or says so.
    """
    if status in (405, 501):
        return True
    if status != 404:
        return False
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return True
    error = value.get("error") if isinstance(value, dict) else None
    found = error if isinstance(error, dict) else value if isinstance(value, dict) else {}
    texts = " ".join(str(found.get(key)) for key in ("message", "code", "type", "error_code")).lower()
    is_object = any(word in texts for word in ("model", "deployment", "item", "response with", "conversation"))
    return not (found.get("param") or is_object)
