"""Endpoints of stored responses, to read and delete them and to list their input."""

from __future__ import annotations

from flask import Blueprint, Response, request

from openai_compat.services.stored_responses import PREFIX, StoredResponses, missing_events, missing_response
from openai_compat.web.json_response import json_response
from openai_compat.web.stored_objects import ObjectEndpoints, Passing, json_bytes, read_cursor, reject_websocket


def responses_blueprint(responses: StoredResponses, passing: Passing) -> Blueprint:
    """Return the blueprint of `GET` and `DELETE {root}/responses/{id}`, and of `GET …/input_items`."""
    blueprint = Blueprint("stored_responses", __name__)
    blueprint.before_request(reject_websocket)
    endpoints = ObjectEndpoints(PREFIX, missing_response, passing)

    @blueprint.get("/responses/<id>")
    def get_response(id: str) -> Response:
        def answer(owner: str) -> Response:
            body = responses.get(owner, id)
            if request.args.get("stream") == "true":
                raise missing_events(id)
            return json_bytes(body)

        return endpoints.respond(id, f"responses/{id}", answer)

    @blueprint.delete("/responses/<id>")
    def delete_response(id: str) -> Response:
        return endpoints.respond(id, f"responses/{id}", lambda owner: json_response(responses.delete(owner, id)))

    @blueprint.get("/responses/<id>/input_items")
    def list_input_items(id: str) -> Response:
        def answer(owner: str) -> Response:
            return json_bytes(responses.input_items(owner, id, read_cursor("desc")))

        return endpoints.respond(id, f"responses/{id}/input_items", answer)

    return blueprint
