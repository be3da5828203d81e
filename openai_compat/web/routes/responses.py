"""The Responses API, under every root that OpenAI's and Azure's clients use."""

from __future__ import annotations

from functools import partial
from typing import Final

from flask import Blueprint, Response

from openai_compat.core.types import JSONObject
from openai_compat.routing.router import ModelRouter, Route
from openai_compat.services.inference_call import RESPONSES_PATH, InferenceCall
from openai_compat.services.responses.compaction import CompactionEndpoint, InputEndpoint, TokensEndpoint
from openai_compat.services.responses.endpoint import (
    ResponsesEndpoint,
    ResponsesService,
    answer_in_background,
    answer_response,
)
from openai_compat.web.inference import choose_route, read_payload, respond_to_call
from openai_compat.web.request_context import current_context
from openai_compat.web.schemas.responses import RESPONSES_REQUEST
from openai_compat.web.sse import HEADERS, StreamFormat

from .inference import URL_PREFIXES as INFERENCE_PREFIXES

URL_PREFIXES: Final = (*INFERENCE_PREFIXES, "/openai")
"""Azure's older clients send `POST /openai/responses?api-version=...`."""


def responses_blueprint(router: ModelRouter, service: ResponsesService) -> Blueprint:
    """Return the blueprint of `POST {root}/responses`, `…/input_tokens` and `…/compact`."""
    blueprint = Blueprint("responses", __name__)

    @blueprint.post("/responses")
    def create_response(deployment: str | None = None) -> Response:
        body, payload = read_payload(RESPONSES_REQUEST)
        route = _choose_route(router, deployment or payload.get("model"), payload)
        call = InferenceCall(RESPONSES_PATH, body, payload, route.model)
        context = current_context()
        endpoint = ResponsesEndpoint(service, route, call, caller=context.identity)
        stream_format = StreamFormat(HEADERS, keep_alive=endpoint.keep_alive, to_error=endpoint.fail)
        answer = partial(answer_in_background, context.hand_over) if endpoint.is_background else answer_response
        return respond_to_call(endpoint, route, call, stream_format, answer)

    @blueprint.post("/responses/input_tokens")
    def count_input_tokens(deployment: str | None = None) -> Response:
        return _respond_to_input(TokensEndpoint, router, service, deployment)

    @blueprint.post("/responses/compact")
    def compact(deployment: str | None = None) -> Response:
        return _respond_to_input(CompactionEndpoint, router, service, deployment)

    return blueprint


def _respond_to_input(
    endpoint_class: type[InputEndpoint], router: ModelRouter, service: ResponsesService, deployment: str | None
) -> Response:
    body, payload = read_payload(RESPONSES_REQUEST)
    route = _choose_route(router, deployment or payload.get("model"), payload)
    call = InferenceCall(endpoint_class.path, body, {**payload, "stream": False}, route.model)
    return respond_to_call(endpoint_class(service, route, call, current_context().identity), route, call)


def _choose_route(router: ModelRouter, model: str | None, payload: JSONObject) -> Route:
    """Return the route of a call. One that names a stored prompt needs no model, because the prompt has one."""
    nameless = router.nameless_route() if not model and payload.get("prompt") is not None else None
    return nameless or choose_route(router, model, payload)
