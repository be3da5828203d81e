"""Endpoints of conversations and their items."""

from __future__ import annotations

from flask import Blueprint, Response, request

from openai_compat.core.errors import AuthenticationError, CapabilityError
from openai_compat.services.conversations import PREFIX, Conversations, missing_conversation
from openai_compat.web.inference import read_payload
from openai_compat.web.json_response import json_response
from openai_compat.web.request_context import current_context
from openai_compat.web.schemas.conversations import CONVERSATION_REQUEST, ITEMS_REQUEST
from openai_compat.web.stored_objects import (
    ObjectEndpoints,
    Passing,
    current_owner,
    json_bytes,
    read_cursor,
    reject_websocket,
)

AREA = "conversations"


def conversations_blueprint(conversations: Conversations, passing: Passing) -> Blueprint:
    """Return the blueprint of `{root}/conversations`, with a list of conversations, which OpenAI's API lacks.

    New conversations are made by the default upstream if the passthrough serves them, because its responses can only
    use its own conversations.
    """
    blueprint = Blueprint(AREA, __name__)
    blueprint.before_request(reject_websocket)
    endpoints = ObjectEndpoints(PREFIX, missing_conversation, passing)

    @blueprint.post("/conversations")
    def create() -> Response:
        if passing.serves(AREA):
            return passing.forward(AREA)
        payload = read_payload(CONVERSATION_REQUEST)[1] if _has_body() else {}
        items, metadata = payload.get("items") or [], payload.get("metadata") or {}
        return json_response(conversations.create(current_owner(), items, metadata))

    @blueprint.get("/conversations")
    def list_conversations() -> Response:
        owner = _require_owner()
        if passing.serves(AREA):
            raise CapabilityError(
                "New conversations are made by the upstream of this server, so there is no list of them. Exclude "
                "'conversations' from the setting PASSTHROUGH to keep them here.",
                code="list_not_available",
            )
        return json_bytes(conversations.page(owner, read_cursor("desc")))

    @blueprint.get("/conversations/<id>")
    def get(id: str) -> Response:
        return endpoints.respond(id, f"{AREA}/{id}", lambda owner: json_bytes(conversations.get(owner, id)))

    @blueprint.post("/conversations/<id>")
    def update(id: str) -> Response:
        return endpoints.update_metadata(id, f"{AREA}/{id}", conversations.update)

    @blueprint.delete("/conversations/<id>")
    def delete(id: str) -> Response:
        return endpoints.respond(id, f"{AREA}/{id}", lambda owner: json_response(conversations.delete(owner, id)))

    _add_item_routes(blueprint, conversations, endpoints)
    return blueprint


def _require_owner() -> str:
    """Return the owner of the caller's conversations. All callers without a key share one owner, who gets no list.

    The `Authorization` of another scheme may be that of a proxy, which all of its users share.

    Raises:
        AuthenticationError
    """
    authorization = current_context().authorization or ""
    owner = current_owner()
    if not owner or authorization[:7].lower() != "bearer ":
        raise AuthenticationError(
            "You didn't provide an API key. Conversations are listed for a key only, because all callers without one "
            "share theirs."
        )
    return owner


def _has_body() -> bool:
    return bool(request.content_length) or "HTTP_TRANSFER_ENCODING" in request.environ


def _add_item_routes(blueprint: Blueprint, conversations: Conversations, endpoints: ObjectEndpoints) -> None:
    @blueprint.post("/conversations/<id>/items")
    def create_items(id: str) -> Response:
        def answer(owner: str) -> Response:
            return json_bytes(conversations.add_items(owner, id, read_payload(ITEMS_REQUEST)[1]["items"]))

        return endpoints.respond(id, f"{AREA}/{id}/items", answer)

    @blueprint.get("/conversations/<id>/items")
    def list_items(id: str) -> Response:
        def answer(owner: str) -> Response:
            return json_bytes(conversations.items(owner, id, read_cursor("desc")))

        return endpoints.respond(id, f"{AREA}/{id}/items", answer)

    @blueprint.get("/conversations/<id>/items/<item_id>")
    def get_item(id: str, item_id: str) -> Response:
        path = f"{AREA}/{id}/items/{item_id}"
        return endpoints.respond(id, path, lambda owner: json_bytes(conversations.get_item(owner, id, item_id)))

    @blueprint.delete("/conversations/<id>/items/<item_id>")
    def delete_item(id: str, item_id: str) -> Response:
        path = f"{AREA}/{id}/items/{item_id}"
        return endpoints.respond(id, path, lambda owner: json_bytes(conversations.delete_item(owner, id, item_id)))
