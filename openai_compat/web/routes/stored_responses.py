"""Endpoints of stored responses, to read and delete them and to list their input."""

from __future__ import annotations

from flask import Blueprint, Response, request

from openai_compat.core.errors import InvalidRequestError
from openai_compat.services.stored_responses import PREFIX, StoredResponses, missing_response
from openai_compat.web.json_response import json_response
from openai_compat.web.request_context import current_context
from openai_compat.web.sse import StreamBody, stream_response
from openai_compat.web.stored_objects import ObjectEndpoints, Passing, json_bytes, read_cursor, reject_websocket


def responses_blueprint(responses: StoredResponses, passing: Passing) -> Blueprint:
    """Return the blueprint of `{root}/responses/{id}` and of the paths below it."""
    blueprint = Blueprint("stored_responses", __name__)
    blueprint.before_request(reject_websocket)
    endpoints = ObjectEndpoints(PREFIX, missing_response, passing)

    @blueprint.get("/responses/<id>")
    def get_response(id: str) -> Response:
        def answer(owner: str) -> Response:
            if request.args.get("stream") == "true":
                return _follow(responses, owner, id)
            return json_bytes(responses.get(owner, id))

        return endpoints.respond(id, f"responses/{id}", answer)

    @blueprint.post("/responses/<id>/cancel")
    def cancel_response(id: str) -> Response:
        return endpoints.respond(id, f"responses/{id}/cancel", lambda owner: json_bytes(responses.cancel(owner, id)))

    @blueprint.delete("/responses/<id>")
    def delete_response(id: str) -> Response:
        return endpoints.respond(id, f"responses/{id}", lambda owner: json_response(responses.delete(owner, id)))

    @blueprint.get("/responses/<id>/input_items")
    def list_input_items(id: str) -> Response:
        def answer(owner: str) -> Response:
            return json_bytes(responses.input_items(owner, id, read_cursor("desc")))

        return endpoints.respond(id, f"responses/{id}/input_items", answer)

    return blueprint


def _follow(responses: StoredResponses, owner: str, id: str) -> Response:
    """Return the events after the one that the query names.

    Raises:
        InvalidRequestError, ObjectNotFoundError
    """
    text = request.args.get("starting_after", "-1")
    if not (text.isascii() and text.removeprefix("-").isdigit()):
        raise InvalidRequestError(
            "Invalid type for 'starting_after': expected an integer.", param="starting_after", code="invalid_type"
        )
    context = current_context()
    stream = responses.follow(owner, id, int(text[:9]), context.to_call_context(is_streamed=True))
    return stream_response(StreamBody(context, iter(stream), stream))
