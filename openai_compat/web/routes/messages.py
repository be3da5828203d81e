"""Anthropic's Messages API, under every root that its clients use."""

from __future__ import annotations

from functools import partial
from typing import Final

from flask import Blueprint, Response
from marshmallow import Schema
from werkzeug.exceptions import MethodNotAllowed, NotFound

from openai_compat.core.settings import Settings
from openai_compat.routing.router import ModelRouter, Route
from openai_compat.services.chat import ChatService
from openai_compat.services.inference_call import MESSAGES_PATH, InferenceCall
from openai_compat.services.messages.endpoint import COUNT_PATH, MessagesEndpoint, TokensEndpoint
from openai_compat.services.messages.events import to_ping
from openai_compat.web.anthropic_errors import REQUEST_ID, to_error_event, to_error_response
from openai_compat.web.inference import choose_route, read_payload, respond_to_call
from openai_compat.web.request_context import current_context
from openai_compat.web.schemas.messages import COUNT_REQUEST, MESSAGES_REQUEST
from openai_compat.web.sse import HEADERS, StreamFormat

ROOTS: Final = ("/anthropic",)
"""Roots of Anthropic's API alone, below which no path is one of OpenAI's."""
URL_PREFIXES: Final = ("/v1", "", "/api/v1", "/v1/v1", "/anthropic/v1", "/anthropic", "/anthropic/v1/v1")
"""Anthropic's own clients append `/v1/messages` to their base URL, and the AI SDK `/messages`."""
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


def messages_blueprint(router: ModelRouter, chats: ChatService, settings: Settings) -> Blueprint:
    """Return the blueprint of `POST {root}/messages` and `…/count_tokens`, with errors in Anthropic's form."""
    blueprint = _new_blueprint("messages", settings)
    tokens = TokensEndpoint(chats)

    @blueprint.post(f"/{MESSAGES_PATH}")
    def create_message() -> Response:
        route, call = _read_call(router, MESSAGES_PATH, MESSAGES_REQUEST)
        to_error = partial(to_error_event, settings=settings, request_id=current_context().request_id)
        stream_format = StreamFormat(HEADERS, keep_alive=to_ping, to_error=to_error)
        return respond_to_call(MessagesEndpoint(chats, call), route, call, stream_format)

    @blueprint.post(f"/{COUNT_PATH}")
    def count_tokens() -> Response:
        return respond_to_call(tokens, *_read_call(router, COUNT_PATH, COUNT_REQUEST))

    @blueprint.route(f"/{MESSAGES_PATH}", methods=[method for method in METHODS if method != "POST"])
    def refuse_method() -> Response:
        raise MethodNotAllowed(valid_methods=["POST"])

    @blueprint.route(f"/{MESSAGES_PATH}/<path:path>", methods=METHODS)
    def refuse_path(path: str) -> Response:
        raise NotFound

    return blueprint


def unknown_paths_blueprint(settings: Settings) -> Blueprint:
    """Return the blueprint of all other paths below the roots of Anthropic's API."""
    blueprint = _new_blueprint("anthropic", settings)

    @blueprint.route("/<path:path>", methods=METHODS)
    def refuse_path(path: str) -> Response:
        raise NotFound

    return blueprint


def _new_blueprint(name: str, settings: Settings) -> Blueprint:
    """Return a blueprint with Anthropic's errors and its header for the request's id."""
    blueprint = Blueprint(name, __name__)

    @blueprint.errorhandler(Exception)
    def handle(error: Exception) -> Response:
        return to_error_response(error, settings)

    @blueprint.after_request
    def add_request_id(response: Response) -> Response:
        response.headers.setdefault(REQUEST_ID, current_context().request_id)
        return response

    return blueprint


def _read_call(router: ModelRouter, path: str, schema: Schema) -> tuple[Route, InferenceCall]:
    """Return the route and the validated call of the current request."""
    body, payload = read_payload(schema)
    if path == COUNT_PATH:
        payload["stream"] = False
    route = choose_route(router, payload.get("model"), payload)
    return route, InferenceCall(path, body, payload, route.model)
