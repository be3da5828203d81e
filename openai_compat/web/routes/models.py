"""Endpoints that list and describe models, in OpenAI's form, or in Anthropic's for its clients."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote

from flask import Blueprint, Response, request

from openai_compat.backends.base import SupportsForwarding
from openai_compat.backends.http.messages import UpstreamRequest
from openai_compat.core.anthropic import VERSION_HEADER
from openai_compat.core.errors import InvalidRequestError, ModelNotFoundError, UpstreamError
from openai_compat.core.types import JSON
from openai_compat.routing.router import ModelRouter
from openai_compat.services.answer_check import check_json_object
from openai_compat.services.anthropic_models import DEFAULT_LIMIT, MAX_LIMIT, ModelCursor, to_anthropic_model, to_page
from openai_compat.services.forwarding import pass_through, to_answer
from openai_compat.services.model_catalog import NO_LIST, ModelCatalog
from openai_compat.web.anthropic_errors import REQUEST_ID
from openai_compat.web.json_response import UNTRUSTED_HEADERS, BytesResponse, json_response
from openai_compat.web.request_context import current_context

from .passthrough import check_path

URL_PREFIXES = ("/v1", "", "/api/v1", "/openai/v1", "/openai", "/anthropic/v1", "/anthropic")


def models_blueprint(routing: ModelRouter, catalog: ModelCatalog) -> Blueprint:
    """Return the blueprint of `GET {prefix}/models` and `GET {prefix}/models/{id}`. An id may contain slashes.

    The header `anthropic-version` decides the form of the answer, because the clients' keys look alike.
    """
    blueprint = Blueprint("models", __name__)

    @blueprint.after_request
    def add_headers(response: Response) -> Response:
        response.vary.add(VERSION_HEADER)
        if _wants_anthropic_form():
            response.headers[REQUEST_ID] = current_context().request_id
        return response

    @blueprint.get("/models")
    def list_models() -> Response:
        context = current_context().to_call_context(is_streamed=False)
        listed = _without_forbidden(catalog.list_all(context))
        if _wants_anthropic_form():
            return json_response(to_page(listed["data"], _read_cursor(), catalog.context_windows()))
        return json_response(listed)

    @blueprint.get("/models/<path:model>")
    def describe_model(model: str) -> Response:
        if not _allows(model):
            raise ModelNotFoundError(model)
        route = routing.route(model)
        upstream = routing.forwarding_upstream
        if upstream is None or route.plan or route.target or route.backend is not routing.upstream:
            found = catalog.describe(route)
        elif _wants_anthropic_form():
            found = _find_at_upstream(model, catalog)
        else:
            return _describe_from_upstream(upstream, model, catalog)
        return json_response(to_anthropic_model(found) if _wants_anthropic_form() else found)

    return blueprint


def _allows(model: str) -> bool:
    """Return True if the caller's key may use the model."""
    caller = current_context().caller
    return caller is None or all(account.policy.allows_model(model) for account in caller.accounts)


def _without_forbidden(listed: JSON) -> JSON:
    """Return a list of models without those that the caller's key may not use."""
    return {**listed, "data": [entry for entry in listed["data"] if _allows(entry["id"])]}


def _wants_anthropic_form() -> bool:
    """Return True if the current request is one of Anthropic's clients."""
    return VERSION_HEADER in request.headers


def _read_cursor() -> ModelCursor:
    """Return the part of the list that the current query asks for.

    Raises:
        InvalidRequestError
    """
    text = request.args.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_LIMIT):
        raise InvalidRequestError(f"limit: must be a whole number from 1 to {MAX_LIMIT}", param="limit")
    return ModelCursor(int(text), request.args.get("after_id"), request.args.get("before_id"))


def _find_at_upstream(model: str, catalog: ModelCatalog) -> JSON:
    """Return the upstream's description of a model from its list.

    Raises:
        ModelNotFoundError: the list does not have it. UpstreamError
    """
    listed = catalog.find(model, current_context().to_call_context(is_streamed=False))
    if listed is None:
        raise ModelNotFoundError(model)
    return listed


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
