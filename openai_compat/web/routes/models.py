"""Endpoints that list and describe models."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote

from flask import Blueprint, Response

from openai_compat.backends.base import SupportsForwarding
from openai_compat.backends.http.messages import UpstreamRequest
from openai_compat.core.errors import UpstreamError
from openai_compat.routing.router import ModelRouter
from openai_compat.services.answer_check import check_json_object
from openai_compat.services.forwarding import pass_through, to_answer
from openai_compat.services.model_catalog import NO_LIST, ModelCatalog
from openai_compat.web.json_response import UNTRUSTED_HEADERS, BytesResponse, json_response
from openai_compat.web.request_context import current_context

from .passthrough import check_path

URL_PREFIXES = ("/v1", "", "/api/v1", "/openai/v1", "/openai")


def models_blueprint(routing: ModelRouter, catalog: ModelCatalog) -> Blueprint:
    """Return the blueprint of `GET {prefix}/models` and `GET {prefix}/models/{id}`. An id may contain slashes."""
    blueprint = Blueprint("models", __name__)

    @blueprint.get("/models")
    def list_models() -> Response:
        return json_response(catalog.list_all(current_context().to_call_context(is_streamed=False)))

    @blueprint.get("/models/<path:model>")
    def describe_model(model: str) -> Response:
        route = routing.route(model)
        upstream = routing.forwarding_upstream
        if route.plan is None and route.backend is routing.upstream and upstream is not None:
            return _describe_from_upstream(upstream, model, catalog)
        return json_response(catalog.describe(route))

    return blueprint


def _describe_from_upstream(upstream: SupportsForwarding, model: str, catalog: ModelCatalog) -> Response:
    """Return the upstream's description of a model. If it has none, the description is the one in the list."""
    check_path(model)
    context = current_context().to_call_context(is_streamed=False)
    reply, body = pass_through(upstream, UpstreamRequest("GET", f"models/{quote(model)}", context.headers), context)
    try:
        answer = to_answer(reply, reply.read())
        if answer.status < 400:
            check_json_object(answer.body)
    finally:
        body.close()
    if answer.status in NO_LIST:
        with suppress(UpstreamError):
            listed = catalog.find(model, context)
            if listed is not None:
                return json_response(listed)
    return BytesResponse(answer.body, answer.status, {**answer.headers, **UNTRUSTED_HEADERS})
