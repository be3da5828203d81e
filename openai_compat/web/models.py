"""The doors that list and describe models."""

from __future__ import annotations

from urllib.parse import quote

from flask import Blueprint, Response

from ..backends.base import ForwardedCall, SupportsForwarding
from ..routing.table import RoutingTable
from ..services.forwarding import pass_through, to_answer
from ..services.models import ModelCatalog
from .calls import current_call
from .passthrough import check_path
from .responses import WholeResponse, json_response

ROOTS = ("/v1", "", "/api/v1", "/openai/v1", "/openai")


def models_blueprint(routing: RoutingTable, catalog: ModelCatalog) -> Blueprint:
    """`GET {root}/models` and `GET {root}/models/{id}`; an id may contain slashes."""
    blueprint = Blueprint("models", __name__)

    @blueprint.get("/models")
    def list_models() -> Response:
        return json_response(catalog.list_all(current_call().to_context(is_streamed=False)))

    @blueprint.get("/models/<path:model>")
    def describe_model(model: str) -> Response:
        route = routing.route(model)
        if route.plan is None and route.backend is routing.upstream and isinstance(route.backend, SupportsForwarding):
            return _ask_upstream(route.backend, model)
        return json_response(catalog.describe(route))

    return blueprint


def _ask_upstream(upstream: SupportsForwarding, model: str) -> Response:
    check_path(model)
    context = current_call().to_context(is_streamed=False)
    reply, body = pass_through(upstream, ForwardedCall("GET", f"models/{quote(model)}", context.headers), context)
    try:
        answer = to_answer(reply, reply.read())
    finally:
        body.close()
    return WholeResponse(answer.body, answer.status, answer.headers)
